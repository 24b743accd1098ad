// How large the result is to be: a factor by buttons or typed, or the pixels of a side.

import {put} from './text.js';
import {element} from './element.js';

const FACTORS = [1, 2, 4];
const CALM = 24e6;   // pixels of a result that is not asked for by accident
const GUESSED = 4;   // the factor from which on fine detail is guessed altogether

export class ScaleField {
  // told: the answer of /v1/options; input: finds the input of the factor
  constructor(told, input) {
    this.told = told;
    this.input = input;
    this.size = null;   // of the photo that is open: [width, height]
  }

  // The field's content, around the input of the factor.
  around(input) {
    const box = element('div', {className: 'scale'}), buttons = element('div', {className: 'segments'});
    buttons.setAttribute('role', 'radiogroup');
    put(buttons, 'option.scale', {}, 'label');
    this.buttons = FACTORS.map(factor => {
      const label = element('label'), radio = element('input', {type: 'radio', name: 'factor', value: factor});
      radio.addEventListener('change', () => this.type(factor));
      label.append(radio, element('span', {textContent: `${factor}×`}));
      buttons.append(label);
      return radio;
    });
    const sides = element('div', {className: 'sides'});
    this.sides = ['width', 'height'].map((side, k) => {
      const pixels = element('input', {type: 'number', min: 1, max: 200_000, step: 1, inputMode: 'numeric', disabled: true, id: `target-${side}`});
      put(pixels, `scale.${side}`, {}, 'label');
      pixels.addEventListener('change', () => {
        if (this.size && pixels.value > 0) this.type(Number(pixels.value) / this.size[k]);
      });
      return pixels;
    });
    sides.append(this.sides[0], element('span', {textContent: '×', className: 'dim'}), this.sides[1], put(element('span', {className: 'dim'}), 'px'));
    this.caution = put(element('p', {className: 'dim', id: 'scale-caution', hidden: true}), 'scale.caution');
    box.append(buttons, input, sides, this.caution);
    return box;
  }

  type(factor) {
    const input = this.input(), {minimum, maximum} = this.told.options.scale;
    input.value = Math.min(maximum, Math.max(minimum, factor));
    input.dispatchEvent(new Event('input', {bubbles: true}));
    input.dispatchEvent(new Event('change', {bubbles: true}));
  }

  // Of the photo that is open, or null.
  of(size) {
    this.size = size;
    this.show();
  }

  show() {
    if (!this.buttons) return;
    const factor = Number(this.input().value);
    for (const radio of this.buttons) {
      radio.checked = Number(radio.value) === factor;
      radio.disabled = Boolean(this.size) && !this.allowed(this.size, Number(radio.value));
      if (radio.disabled) put(radio.parentElement, 'scale.refused', {count: this.told.limits.work_megapixels}, 'title');
      else { delete radio.parentElement.dataset.title; radio.parentElement.removeAttribute('title'); }
    }
    this.caution.hidden = factor < GUESSED;
    this.sides[0].parentElement.hidden = !this.size;
    this.sides.forEach((pixels, k) => {
      pixels.disabled = !this.size;
      if (document.activeElement !== pixels || !this.size) pixels.value = this.size && factor ? Math.max(1, Math.round(this.size[k] * factor)) : '';
    });
  }

  allowed([width, height], factor) { return width * height * factor ** 2 <= this.told.limits.work_megapixels * 1e6; }

  // The factor to begin with for a photo: the preset's, or its own size where that would be very large; undefined: the preset's.
  advised([width, height], ofPreset) {
    const most = Math.min(CALM, this.told.limits.work_megapixels * 1e6);
    return width * height * ofPreset ** 2 <= most ? undefined : 1;
  }
}
