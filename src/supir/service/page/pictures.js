// Which picture stands for a job: before, after, and while it is at work.

import {json, picture} from './api.js';
import {hasPreview, isPhoto} from './words.js';

const view = (job, name, more) => picture(`v1/jobs/${job.id}/${name}`, more);

export class Pictures {
  // of: the jobs of a photo, the newest first; onNews: a picture has come that should be shown.
  constructor(of, onNews) {
    this.of = of;
    this.onNews = onNews;
    this.sizes = new Map();   // of photos by source: [width, height], upright
    this.local = new Map();   // addresses of photos that were opened here, by source
    this.reports = new Map(); // of audits, by job
    this.steps = new Map();   // of jobs at work: the last step's picture
  }

  kept(source) { return this.of(source).find(job => job.state === 'done'); }
  previewOf(source) { return this.of(source).find(job => hasPreview(job)); }

  // Of a photo, upright, in pixels, or as its header says; null where nothing is known.
  sizeOf(source) {
    const [job] = this.of(source);
    return this.sizes.get(source) ?? (job ? [job.width, job.height] : null);
  }

  // What the browser can show of a file at once, until the service shows what it read.
  async open(source, file) {
    const address = URL.createObjectURL(file), image = new Image();
    image.src = address;
    try {
      await image.decode();
      this.sizes.set(source, [image.naturalWidth, image.naturalHeight]);
      this.local.set(source, address);
      this.onNews();
    } catch { URL.revokeObjectURL(address); }   // a TIFF, or damaged
  }

  // Pixels of the result; of the photo, its own: a clean preview is made no larger than a screen.
  size(job) {
    const scale = isPhoto(job) ? 1 : Number(job.options?.scale ?? 1);
    return (this.sizes.get(job.source) ?? [job.width, job.height]).map(side => Math.max(1, Math.round(side * scale)));
  }

  before(job, against) {
    if (against === 'preview') return this.clean(job);
    const done = this.kept(job.source);
    return done ? view(done, 'views/input').then(found => this.measured(job.source, found)) : this.local.get(job.source);
  }

  // The size of a photo as it was read, which its header does not say when it has a turn.
  async measured(source, address) {
    if (this.sizes.has(source)) return address;
    const image = new Image();
    image.src = address;
    await image.decode();
    this.sizes.set(source, [image.naturalWidth, image.naturalHeight]);
    this.onNews();
    return address;
  }

  clean(job) {
    if (job.preview) return view(job, 'preview');
    const first = this.previewOf(job.source);
    return first ? view(first, 'preview') : this.before(job, 'input');
  }

  // The layer that shows what was invented; the report of an audit.
  overlay(job) { return view(job, 'audit/overlay'); }

  report(job) {
    if (!this.reports.has(job.id)) this.reports.set(job.id, json('GET', `v1/jobs/${job.id}/audit`));
    return this.reports.get(job.id);
  }

  after(job) {
    if (job.state === 'done') return view(job, isPhoto(job) ? 'preview' : 'views/result');
    return job.state === 'running' && job.step ? this.step(job) : this.clean(job);
  }

  // While one is on its way, no other is asked for.
  step(job) {
    const known = this.steps.get(job.id) ?? {step: 0, address: null};
    this.steps.set(job.id, known);
    if (job.step > known.step && !known.busy) {
      Object.assign(known, {busy: true, step: job.step});
      view(job, 'views/step', {fresh: true}).then(found => { known.address = found; }, () => {}).finally(() => {
        known.busy = false;
        this.onNews();
      });
    }
    return known.address ?? this.clean(job);
  }
}
