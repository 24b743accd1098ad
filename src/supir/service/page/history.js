// The film strip: every photo with all that was made of it, the newest first.

import {picture} from './api.js';
import {element} from './form.js';
import {isActive, seedOf} from './words.js';

export class History {
  constructor(root, {onOpen, onToggle}) {
    this.list = root.querySelector('ol');
    this.items = new Map();
    this.onOpen = onOpen;
    this.onToggle = onToggle;
  }

  // jobs: the newest first; shown: those on the stage.
  show(jobs, shown) {
    const kept = jobs.filter(job => job.state !== 'expired' && job.state !== 'cancelled');
    const photos = new Map();
    for (const job of kept) photos.set(job.source, [job, ...photos.get(job.source) ?? []]);   // within one, the oldest first
    const items = [...photos.values()].map(made => this.photo(made, shown));
    const gone = new Set(this.items.keys());
    for (const job of kept) gone.delete(job.id);
    for (const id of gone) this.items.delete(id);
    if (items.length !== this.list.children.length || items.some((item, k) => item !== this.list.children[k]))
      this.list.replaceChildren(...items);
  }

  photo(made, shown) {
    const found = [...this.list.children].find(item => item.dataset.source === made[0].source);
    const item = found ?? element('li');
    item.dataset.source = made[0].source;
    const frames = made.map(job => this.frame(job, shown));
    if (frames.length !== item.children.length || frames.some((frame, k) => frame !== item.children[k]))
      item.replaceChildren(...frames);
    return item;
  }

  frame(job, shown) {
    let frame = this.items.get(job.id);
    if (!frame) this.items.set(job.id, frame = this.made(job));
    const [open, add] = frame.children;
    const what = job.until === 'preview' ? 'clean preview' : `seed ${seedOf(job) ?? ''}`;
    const state = job.state === 'done' ? '' : `, ${job.state}`;
    open.setAttribute('aria-label', `${job.name}, ${what}${state}`);
    open.title = `${job.name}\n${what}${state}`;
    frame.querySelector('.under').textContent = job.until === 'preview' ? job.name : what;
    frame.classList.toggle('active', isActive(job));
    frame.classList.toggle('failed', job.state === 'failed');
    open.setAttribute('aria-current', shown.includes(job.id));
    add.hidden = job.until === 'preview' || job.state !== 'done';
    add.setAttribute('aria-pressed', shown.includes(job.id));
    if (job.state === 'done' && !frame.dataset.seen) {
      frame.dataset.seen = 'yes';
      this.thumbnail(frame, job);
    }
    return frame;
  }

  made(job) {
    const frame = element('div', {className: 'frame'});
    const open = element('button', {type: 'button', className: 'open'});
    open.append(element('span', {className: 'sign', textContent: '…'}), element('span', {className: 'under'}));
    open.addEventListener('click', () => this.onOpen(job.id));
    const add = element('button', {type: 'button', className: 'add', textContent: '⊞', title: 'Side by side'});
    add.setAttribute('aria-label', 'Side by side');
    add.addEventListener('click', () => this.onToggle(job.id));
    frame.append(open, add);
    return frame;
  }

  // Its own address: thumbnails are many, and none is let go.
  async thumbnail(frame, job) {
    const address = await picture(`v1/jobs/${job.id}/views/thumbnail`, {kept: true}).catch(() => null);
    if (!address) return;
    const image = element('img', {src: address, alt: ''});
    frame.querySelector('.sign').replaceWith(image);
  }
}
