// The presets as cards: what each is for, or, with a model's own numbers, what it does; those that are the same say so.

import {element} from './element.js';
import {number, put} from './text.js';
import {presetName} from './words.js';

const EXPERT = ['reference'];

export function presetCards(root, told, onChange) {
  for (const name of Object.keys(told.trade_offs)) {
    const label = element('label', {className: 'preset'});
    const radio = element('input', {type: 'radio', name: 'preset', value: name, checked: name === told.default_preset});
    radio.addEventListener('change', onChange);
    label.append(radio, put(element('strong'), `preset.${name}`), about(name, told));
    put(label, 'preset.term', {name}, 'title');
    label.classList.toggle('same', name in told.same_presets);
    root.querySelector(EXPERT.includes(name) ? '#expert-presets' : '#presets').append(label);
  }
}

function about(name, told) {
  const text = element('span'), same = told.same_presets[name];
  if (same) return put(text, 'preset.same', {get name() { return presetName(same); }});
  const {num_steps: count, detail, see_larger: larger} = told.presets[name];
  if (told.own_presets.includes(name)) {
    const quick = !larger && told.presets[told.default_preset].see_larger;
    const key = quick ? 'preset.own.quick' : detail == null ? 'preset.own' : 'preset.own.detail';
    return put(text, key, {count, get detail() { return number(detail); }});
  }
  return put(text, `preset.${name}.help`);
}
