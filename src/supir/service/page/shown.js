// What is on the stage: a pane for each of up to four jobs of a photo, with its pictures and what is to be said of them.

import {sayAudit} from './audited.js';
import {element} from './element.js';
import {put, t, unput} from './text.js';
import {facts, hasPreview, isActive, isPhoto, progress, share} from './words.js';

export class Shown {
  constructor(stage, pictures, jobs, told) {
    Object.assign(this, {stage, pictures, jobs, told});
    this.coming = new Map();   // of figures: pictures that are on their way
  }

  show(panes, {against, opening, invented}) {
    document.body.toggleAttribute('data-empty', !panes.length);
    if (!panes.length) { this.stage.clear(); return; }
    const preview = panes.some(job => hasPreview(job) || this.pictures.previewOf(job.source));
    const choice = document.querySelector('#against [value=preview]');
    choice.disabled = !preview;
    const compared = preview && choice.checked ? against : 'input';
    this.stage.shape(panes.length, ...this.pictures.size(panes[0]));
    panes.forEach((job, k) => {
      const layered = invented && Boolean(job.audit);
      this.caption(this.stage.figures[k], job, {compared, opening, layered});
      sayAudit(this.stage.figures[k].querySelector('.audited'), job, this.pictures, {shown: panes.some(each => each.audit)});
      this.put(k, 'before', this.pictures.before(job, compared));
      this.put(k, 'after', this.pictures.after(job));
      this.put(k, 'audit', layered && this.pictures.overlay(job));
    });
  }

  caption(figure, job, {compared, opening, layered}) {
    const done = job.state === 'running' && !isPhoto(job) ? share(job) : null;
    const bar = figure.querySelector('progress'), active = isActive(job), what = figure.querySelector('.what');
    figure.dataset.job = job.id;
    figure.dataset.state = job.state;
    bar.hidden = !active;
    if (done === null) bar.removeAttribute('value'); else bar.value = done;
    const known = isPhoto(job) ? [hasPreview(job) ? t('preview') : t('photo')] : facts(job, this.pictures.size(job), {told: this.told});
    const said = [...known, progress(job, opening)].filter(Boolean).join(' · ');
    if (what.dataset.said !== said + job.error) {
      what.dataset.said = said + job.error;
      what.replaceChildren(said);
      if (job.state === 'failed') what.append(' ', element('span', {textContent: job.error, translate: false, lang: 'en'}));
    }
    what.title = said;
    this.tags(figure, job, compared, layered);
    for (const [name, fits] of Object.entries({
      cancel: active, settings: !isPhoto(job) && Boolean(job.options), remove: !active, download: job.state === 'done',
    })) figure.querySelector(`[data-do=${name}]`).hidden = !fits;
    figure.querySelector('.notice').hidden = isPhoto(job) || job.state !== 'done';
  }

  // Nothing is called what it is not: until there is a preview, the photo is seen on both sides.
  tags(figure, job, compared, layered) {
    const [left, right] = figure.querySelectorAll('.tag');
    const preview = hasPreview(job) || this.pictures.previewOf(job.source);
    put(left, compared === 'preview' ? 'preview' : 'photo');
    if (layered) put(right, 'audit.layer');
    else if (job.state === 'done' && !isPhoto(job)) put(right, 'after');
    else if (job.state === 'running' && job.step && this.pictures.steps.get(job.id)?.address) put(right, 'step', {step: job.step});
    else if (preview) put(right, 'preview');
    else unput(right);
    const single = right.dataset.text === undefined;
    right.hidden = single || right.dataset.text === left.dataset.text;
    figure.querySelector('.pane').classList.toggle('single', single);
  }

  // Pictures come when they are there; until then what is seen is of before, and the pane is busy.
  async put(k, layer, address) {
    const figure = this.stage.figures[k], count = change => {
      this.coming.set(figure, (this.coming.get(figure) ?? 0) + change);
      figure.setAttribute('aria-busy', this.coming.get(figure) > 0);
    };
    count(1);
    try {
      await this.stage.paint(k, layer, await address || '');
    } catch { /* there is none, or not any more */ }
    count(-1);
  }
}
