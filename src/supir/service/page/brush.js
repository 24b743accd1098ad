// The brush: a place is painted on the photo, by pointer, finger or keys, to be protected, or to be treated alone.

import {INLINE} from './mask_png.js';
import {Painted} from './painted.js';
import {put} from './text.js';

const PAINTED = new RegExp(`^${INLINE}[^;]*; *(protect|only)$`);   // a region that was painted here
const SHARE = 0.25, STEP = 12;   // of the brush's size, and CSS pixels at least, that an arrow moves it by

export class Brush {
  // stage: `Stage`; root: the bar of the brush; onChange: something is painted otherwise, or the brush taken or laid down
  constructor(stage, root, onChange) {
    Object.assign(this, {stage, root, onChange});
    this.all = new Map();     // `Painted` by photo
    this.source = null;
    this.on = false;
    this.stroke = null;       // the one that is being painted
    this.sheet = stage.figures[0].querySelector('.sheet.mask');
    this.ring = stage.figures[0].querySelector('.ring');
    this.at = stage.middle;
    this.size = root.querySelector('[name=brush-size]');
    root.querySelector('#brush-undo').addEventListener('click', () => this.undo());
    root.querySelector('#brush-clear').addEventListener('click', () => { this.painted?.clear(); this.settle(); });
    root.querySelector('#brush-done').addEventListener('click', () => this.take(false));
    root.addEventListener('change', ({target}) => {
      if (target.name !== 'brush-kind' || !this.painted) return;
      this.painted.kind = target.value;
      this.settle();
    });
    this.size.addEventListener('input', () => this.show());
    stage.panes[0].addEventListener('pointermove', event => {
      if (event.pointerType !== 'touch') this.move(stage.within(stage.panes[0], event));
    });
    this.sheet.addEventListener('keydown', event => this.typed(event));
  }

  get painted() { return this.all.get(this.source); }
  get erases() { return this.root.querySelector('[name=brush-tool]:checked').value === 'erase'; }

  // What a request says of a photo; '' where nothing is painted on it.
  region(source) { return this.all.get(source)?.region ?? ''; }
  settled() { return Promise.all([...this.all.values()].map(each => each.read)); }

  // Of the photo that is open, [width, height] of which are known.
  of(source, size) {
    if (source === this.source && (!source || this.painted || !size)) return;
    this.source = source;
    if (!source) { this.take(false); return; }
    if (!size) return;
    if (!this.painted) this.all.set(source, new Painted(size));
    this.sheet.replaceChildren(this.painted.canvas);
    this.mark();
    this.show();
  }

  mark() { this.root.querySelector(`[name=brush-kind][value=${this.painted.kind}]`).checked = true; }

  // Take the brush, or lay it down.
  take(on) {
    if (this.on === on || on && !this.painted) return;
    const within = [this.sheet, ...this.root.querySelectorAll('*')].includes(document.activeElement);
    if (!on && within) document.querySelector('#brush').focus();   // or nothing would have the focus
    this.on = on;
    this.stage.tool = on ? this : null;
    this.stage.stage.classList.toggle('painting', on);
    this.sheet.tabIndex = on ? 0 : -1;
    this.at = this.stage.middle;
    this.show();
    this.onChange();
    if (on) this.sheet.focus({preventScroll: true});
  }

  // Take over what was painted for an earlier request of the photo that is open; its other regions are given back.
  async fill(region) {
    const {painted} = this;
    if (!painted) return region;
    const each = region.split('|').map(part => part.trim()).filter(Boolean), own = each.find(part => PAINTED.test(part));
    if (own) await painted.load(own); else painted.clear();
    this.mark();
    await this.settle();
    return each.filter(part => part !== own).join(' | ');
  }

  undo() { this.painted?.undo(); this.settle(); }

  // What the stage says of one finger, or the pointer, in pixels of the pane.
  begin(point) {
    const {scale, width} = this.stage;
    this.stroke = {points: [this.onPhoto(point)], size: this.size.value / scale / width, erases: this.erases};
    this.painted.add(this.stroke);
    this.move(point);
  }

  go(point) {
    this.stroke.points.push(this.onPhoto(point));
    this.painted.draw();
    this.move(point);
  }

  onPhoto(point) {
    const {x, y, scale, width} = this.stage;
    return {x: (point.x - x) / scale / width, y: (point.y - y) / scale / width};
  }

  end() {
    if (!this.stroke) return;
    this.stroke = null;
    this.settle();
  }

  // A second finger has come: it was no stroke.
  cancel() {
    if (!this.stroke) return;
    this.stroke = null;
    this.undo();
  }

  async settle() {
    await this.painted?.settle();
    this.show();
    this.onChange();
  }

  move(point) { this.at = point; this.show(); }

  typed(event) {
    const along = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!this.on || event.ctrlKey || event.metaKey || event.altKey || along && event.shiftKey) return;
    const step = Math.max(STEP, this.size.value * SHARE), {width, height} = this.stage.pane;
    if (along) {
      this.move({x: Math.min(width, Math.max(0, this.at.x + along[0] * step)), y: Math.min(height, Math.max(0, this.at.y + along[1] * step))});
    } else if (event.key === ' ' || event.key === 'Enter') {
      this.begin(this.at);
      this.end();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  larger(by) {
    this.size.value = Math.round(Number(this.size.value) * by);
    this.show();
  }

  erase(erases) { this.root.querySelector(`[name=brush-tool][value=${erases ? 'erase' : 'paint'}]`).checked = true; }

  show() {
    const size = Number(this.size.value), painted = this.painted;
    this.root.hidden = this.ring.hidden = !this.on;
    Object.assign(this.ring.style, {width: `${size}px`, height: `${size}px`, transform: `translate(${this.at.x - size / 2}px, ${this.at.y - size / 2}px)`});
    this.root.querySelector('#brush-undo').disabled = !painted?.strokes.length;
    this.root.querySelector('#brush-clear').disabled = !painted?.text;
    put(this.sheet, painted?.text ? `painted.${painted.kind}` : 'painted.nothing', {}, 'label');
  }
}
