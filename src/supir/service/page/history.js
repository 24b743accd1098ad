// The film strip: every photo with all that was made of it, the newest first, by day; which photos are chosen; search.

import {picture} from './api.js';
import {element} from './element.js';
import {date, put, t} from './text.js';
import {isActive, isPhoto, percent, short} from './words.js';

export class History {
  constructor(root, {onOpen, onToggle, onChoose, onSearch}) {
    this.list = root.querySelector('ol');
    this.frames = new Map();
    this.photos = new Map();
    Object.assign(this, {onOpen, onToggle, onChoose});
    this.found = null;   // the sources in which words were found; null: nothing is looked for
    const search = root.querySelector('#search');
    search.addEventListener('input', () => onSearch(search.value.trim()));
    search.addEventListener('keydown', event => {
      if (event.key === 'Escape') { search.value = ''; onSearch(''); search.blur(); }
    });
  }

  // jobs: the newest first; shown: those on the stage; chosen: sources of photos
  show(jobs, shown, chosen) {
    const kept = jobs.filter(job => job.state !== 'expired' && job.state !== 'cancelled');
    const photos = new Map();
    for (const job of kept) photos.set(job.source, [job, ...photos.get(job.source) ?? []]);   // within one, the oldest first
    const items = [];
    let day = null;
    for (const [source, made] of photos) {
      if (this.found && !this.found.has(source)) continue;
      const label = dayOf(made.at(-1).created);
      if (label !== day) items.push(this.day(day = label));
      items.push(this.photo(source, made, shown, chosen, photos.size > 1));
    }
    for (const id of this.frames.keys()) if (!kept.some(job => job.id === id)) this.frames.delete(id);
    for (const source of this.photos.keys()) if (!photos.has(source)) this.photos.delete(source);
    fill(this.list, items);
    document.querySelector('#nothing').hidden = !this.found || items.length > 0;
    this.order = [...photos.keys()].filter(source => !this.found || this.found.has(source));
  }

  day(label) {
    const item = [...this.list.children].find(each => each.dataset.day === label) ?? element('li', {className: 'day'});
    item.dataset.day = item.textContent = label;
    item.translate = false;
    return item;
  }

  photo(source, made, shown, chosen, several) {
    if (!this.photos.has(source)) this.photos.set(source, this.madePhoto(source));
    const item = this.photos.get(source), [choice, frames] = item.children, box = choice.querySelector('input');
    choice.hidden = !several || made.every(job => job.state === 'failed');
    box.checked = chosen.has(source);
    put(box, 'history.choose', {name: made[0].name}, 'label');
    item.classList.toggle('chosen', several && chosen.has(source));
    fill(frames, made.map(job => this.frame(job, made, shown)));
    return item;
  }

  madePhoto(source) {
    const item = element('li', {className: 'photo'}), choice = element('label', {className: 'tick'}), box = element('input', {type: 'checkbox'});
    item.dataset.source = source;
    box.addEventListener('change', () => this.onChoose(source, box.checked));
    choice.append(box);
    item.append(choice, element('div', {className: 'frames'}));
    return item;
  }

  frame(job, made, shown) {
    if (!this.frames.has(job.id)) this.frames.set(job.id, this.madeFrame(job));
    const frame = this.frames.get(job.id), [open, add] = frame.children, under = frame.querySelector('.under');
    const what = short(job, made), badge = frame.querySelector('.badge');
    const state = job.state === 'done' ? '' : t(`state.${job.state}`);
    const share = job.state === 'running' && !isPhoto(job) ? percent(job) : state;
    const named = {name: job.name, what, state, time: date(Date.parse(job.created), {timeStyle: 'short'})};
    put(open, state ? 'history.frame.state' : 'history.frame', named, 'label');
    put(open, 'history.frame.title', named, 'title');
    under.translate = !isPhoto(job);
    under.textContent = isPhoto(job) ? job.name : what;
    badge.textContent = share;
    badge.hidden = !state;
    frame.classList.toggle('active', isActive(job));
    frame.classList.toggle('failed', job.state === 'failed');
    open.setAttribute('aria-current', shown.includes(job.id));
    add.hidden = isPhoto(job) || job.state !== 'done';
    add.setAttribute('aria-pressed', shown.includes(job.id));
    if (job.state === 'done' && !frame.dataset.seen) {
      frame.dataset.seen = 'yes';
      this.thumbnail(frame, job);
    }
    return frame;
  }

  madeFrame(job) {
    const frame = element('div', {className: 'frame'});
    const open = element('button', {type: 'button', className: 'open'});
    open.append(element('span', {className: 'sign', textContent: '…'}), element('span', {className: 'under'}), element('span', {className: 'badge'}));
    open.addEventListener('click', () => this.onOpen(job.id));
    const add = element('button', {type: 'button', className: 'add', textContent: '⊞'});
    for (const place of ['title', 'label']) put(add, 'history.beside', {}, place);
    add.addEventListener('click', () => this.onToggle(job.id));
    frame.append(open, add);
    return frame;
  }

  // The photo after, or before, another in the order of the strip; the first where there is none.
  beside(source, step) {
    const place = this.order.indexOf(source);
    return this.order[place < 0 ? 0 : Math.min(this.order.length - 1, Math.max(0, place + step))];
  }

  reveal(id) { this.frames.get(id)?.scrollIntoView({block: 'nearest', inline: 'nearest'}); }

  // Its own address: thumbnails are many, and none is let go.
  async thumbnail(frame, job) {
    const address = await picture(`v1/jobs/${job.id}/views/thumbnail`, {kept: true}).catch(() => null);
    if (!address) return;
    const image = element('img', {src: address, alt: ''});
    frame.querySelector('.sign').replaceWith(image);
  }
}

function fill(parent, items) {
  if (items.length !== parent.children.length || items.some((item, k) => item !== parent.children[k])) parent.replaceChildren(...items);
}

function dayOf(created) {
  const day = new Date(created), today = new Date();
  const back = Math.round((new Date(today).setHours(0, 0, 0, 0) - new Date(day).setHours(0, 0, 0, 0)) / 864e5);
  if (back < 2) return t(back < 1 ? 'day.today' : 'day.yesterday');
  return date(day, day.getFullYear() === today.getFullYear() ? {day: 'numeric', month: 'short'} : {dateStyle: 'medium'});
}
