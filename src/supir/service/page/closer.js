// What is looked at closely while there is no result: the clean preview of that part alone, as large as in the result.

import {again, ask, picture} from './api.js';
import {put} from './text.js';
import {isActive} from './words.js';

const CELL = 256;    // pixels of the result: parts begin and end at multiples of it, so that a small move needs no other
const REST = 400;    // milliseconds for which the view rests before a part is asked for
const CLOSE = 0.99;  // device pixels for one of the photo from which on it is looked at closely

export class Closer {
  // most: pixels that a part is worked on at; attempt: says what is refused
  constructor(stage, jobs, most, attempt) {
    Object.assign(this, {stage, jobs, most, attempt});
    this.figure = stage.figures[0];
    this.sheet = this.figure.querySelector('.sheet.closer');
    this.parts = new Map();   // IDs of jobs by what was asked for: the photo, the options and the part
    this.what = null;
  }

  // The photo that is seen, as {job, size, scale, made, options, least}: its [width, height], the result's scale and that of
  // its preview, the options as JSON, the side that is worked on at least; null where nothing is to be looked at closer.
  of(what) {
    const before = this.key;
    this.what = what;
    this.key = what ? `${what.job.source} ${what.options}` : '';
    if (this.key !== before) { this.sheet.replaceChildren(); this.look(); }
    this.show();
  }

  // What is seen has changed.
  look() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.attempt(this.rest()), REST);
  }

  async rest() {
    const crop = this.wanted();
    this.show();
    if (!crop || this.made().some(job => contains(job.crop, crop))) return;
    const {what, key} = this, holder = this.jobs.holder(what.job.source), name = `${key} ${crop}`;
    if (!holder || this.parts.has(name)) return;
    this.parts.set(name, null);   // it is being asked for
    try {
      await this.leave();
      const view = await again(holder.id, what.options, {until: 'preview', crop: crop.join()});
      this.parts.set(name, this.jobs.learn(view, {sent: true}).id);
    } finally {
      if (!this.parts.get(name)) this.parts.delete(name);
    }
    this.show();
  }

  // What waits still is not looked at any more.
  async leave() {
    for (const [name, id] of this.parts) {
      if (this.jobs.get(id)?.state !== 'queued') continue;
      this.parts.delete(name);
      await ask('POST', `v1/jobs/${id}/cancel`);
    }
  }

  // The parts of the photo that is seen, of these options, that are done or will be.
  made() {
    const asked = [...this.parts].filter(([name]) => this.key && name.startsWith(`${this.key} `)).map(([, id]) => this.jobs.get(id));
    return asked.filter(job => job && (job.state === 'done' || isActive(job)));
  }

  // What of the photo is seen, in its pixels: [left, top, right, bottom].
  seen() {
    const {stage, what: {size: [width, height]}} = this, pixel = stage.scale * stage.width / width;   // CSS pixels for one
    const {width: wide, height: high} = stage.pane;
    return [-stage.x / pixel, -stage.y / pixel, (wide - stage.x) / pixel, (high - stage.y) / pixel]
      .map((place, k) => Math.min(k % 2 ? height : width, Math.max(0, place)));
  }

  // The part that is to be made: what is seen, or as much around its middle as may be; null where it is not looked at closely.
  wanted() {
    if (!this.what || !this.stage.width || this.stage.fitted) return null;
    const {size, scale, made, least} = this.what, pixel = this.stage.scale * this.stage.width / size[0] * devicePixelRatio;
    if (pixel < CLOSE || pixel <= made) return null;
    const [left, top, right, bottom] = this.seen(), cell = Math.max(1, Math.round(CELL / scale));
    const short = Math.min(...size) * scale, area = size[0] * size[1] * scale ** 2;
    const enlarged = Math.max(1, Math.min(least / short, 2 * least / Math.sqrt(area)));   // as working_size says
    const most = this.most / (scale * enlarged) ** 2;
    const axes = [axis(left, right, cell, size[0]), axis(top, bottom, cell, size[1])];
    while (length(axes[0]) * length(axes[1]) > most) {
      const longer = length(axes[0]) >= length(axes[1]) ? axes[0] : axes[1];
      if (longer.last - longer.first < 2) return null;
      if (longer.middle - longer.first * cell > longer.last * cell - longer.middle) longer.first += 1; else longer.last -= 1;
    }
    return [start(axes[0]), start(axes[1]), length(axes[0]), length(axes[1])];
  }

  // Every part that is there in its place, and what the preview is called.
  async show() {
    const seen = this.what && this.stage.width ? this.seen() : null, parts = this.made();
    const near = parts.filter(job => seen && this.wanted() && meets(job.crop, seen)), {key} = this;
    const name = near.some(isActive) ? 'preview.coming' : near.length ? 'preview.full' : 'preview';
    const tag = this.figure.querySelector('.tag.right');
    if (this.what && tag.dataset.text?.startsWith('preview')) {
      put(tag, name);
      tag.hidden = name === this.figure.querySelector('.tag.left').dataset.text;
    }
    for (const job of parts.filter(each => each.state === 'done')) {
      if (this.sheet.querySelector(`[data-job="${job.id}"]`)) continue;
      const image = new Image(), [left, top, width, height] = job.crop, pixel = this.stage.width / this.what.size[0];
      put(image, 'preview.full', {}, 'alt');
      image.dataset.job = job.id;
      image.draggable = false;
      Object.assign(image.style, {left: `${left * pixel}px`, top: `${top * pixel}px`, width: `${width * pixel}px`, height: `${height * pixel}px`});
      image.src = await picture(`v1/jobs/${job.id}/result`);
      await image.decode();
      if (key === this.key && !this.sheet.querySelector(`[data-job="${job.id}"]`)) this.sheet.append(image);
    }
  }
}

// The cells of one side in which something is seen.
const axis = (from, to, cell, side) => ({first: Math.floor(from / cell), last: Math.ceil(to / cell), cell, side, middle: (from + to) / 2});
const start = ({first, cell}) => first * cell;
const length = each => Math.min(each.side, each.last * each.cell) - start(each);

const contains = ([left, top, width, height], [x, y, wide, high]) =>
  left <= x && top <= y && x + wide <= left + width && y + high <= top + height;
const meets = ([left, top, width, height], [x, y, right, bottom]) => left < right && top < bottom && x < left + width && y < top + height;
