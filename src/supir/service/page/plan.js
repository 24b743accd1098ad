// Sizes and time, beside the button that starts the work: asked of the service whenever they may have changed.

import {json} from './api.js';
import {put, t, unput} from './text.js';
import {duration} from './words.js';

export class Plan {
  constructor(line) {
    this.line = line;
    this.known = new Map();   // answers by what was asked
    this.wanted = null;
  }

  // photos: [{width, height, options}] with options as JSON, `times` results of each; [] while none is open
  show(photos, times) {
    this.wanted = {photos, times};
    this.tell();
    if (!this.busy) this.ask();
  }

  // One question at a time; what has been asked is not asked again.
  async ask() {
    this.busy = true;
    try {
      for (let next = this.missing(); next; next = this.missing()) {
        let answer = null;
        try {
          answer = await json('POST', `v1/plan?width=${next.width}&height=${next.height}`, {body: next.options, headers: {'Content-Type': 'application/json'}});
        } catch { /* said when it is restored */ }
        this.known.set(key(next), answer);
        this.tell();
      }
    } finally { this.busy = false; }
  }

  missing() { return this.wanted.photos.find(photo => !this.known.has(key(photo))); }

  // After a result the service knows better how fast it goes.
  forget() { this.known.clear(); if (this.wanted && !this.busy) this.ask(); }

  tell() {
    const {photos, times} = this.wanted, answers = photos.map(photo => this.known.get(key(photo)));
    this.line.hidden = !photos.length;
    this.line.classList.toggle('refused', answers.some(answer => answer?.refused));
    if (!photos.length) { unput(this.line); return; }
    const seconds = answers.every(answer => answer?.seconds) ? times * answers.reduce((sum, answer) => sum + answer.seconds, 0) : null;
    const given = {get time() { return seconds === null ? '' : t('plan.about', {time: duration(seconds)}); }, count: photos.length};
    if (answers.some(answer => answer?.refused)) put(this.line, 'plan.refused');
    else if (photos.length > 1) put(this.line, 'plan.several', given);
    else {
      const [{width, height, scale}] = photos, [answer] = answers;
      Object.assign(given, {from: `${width} × ${height}`, to: answer ? `${answer.width} × ${answer.height}` : `${Math.round(width * scale)} × ${Math.round(height * scale)}`});
      put(this.line, 'plan.one', Object.defineProperty(given, 'times', {get: () => times > 1 ? t('plan.times', {count: times}) : ''}));
    }
    this.line.setAttribute('aria-busy', answers.some(answer => answer === undefined));
  }
}

const key = ({width, height, options}) => `${width} ${height} ${options}`;
