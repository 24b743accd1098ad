// What is known of the jobs, as the service told of them.

import {json} from './api.js';
import {isActive, isPhoto} from './words.js';

const PAGE = 60;

export class Jobs {
  // onFailure: a job of which nobody knew has failed
  constructor(onFailure) {
    this.byId = new Map();
    this.hidden = new Set();   // removed here, and not yet there
    this.onFailure = onFailure;
  }

  get(id) { return this.hidden.has(id) ? undefined : this.byId.get(id); }
  known() { return [...this.byId.values()].filter(job => !this.hidden.has(job.id)); }
  newest() {
    return this.known().filter(job => !job.crop).sort((one, other) => other.created.localeCompare(one.created));
  }

  // Of a photo: previews of its parts, which are not shown among its jobs; all that is to go with it.
  parts(source) { return this.known().filter(job => job.crop && job.source === source); }
  whole(source) { return [...this.of(source), ...this.parts(source)].map(job => job.id); }

  of(source) { return this.newest().filter(job => job.source === source); }
  photo(source) { return this.of(source).find(isPhoto); }
  results(source) { return this.of(source).filter(job => !isPhoto(job)); }
  done(source) { return this.results(source).find(job => job.state === 'done'); }
  active(sources) { return [...sources].flatMap(source => this.of(source)).filter(isActive); }

  // A job that has the photo's file.
  holder(source) { return this.of(source).find(job => job.state === 'done') ?? this.of(source).find(isActive); }

  // Events come in order; an answer may come late, when events have told of what followed. A failure is said when it is
  // first heard of, by whichever way, of a job that was not known as failed; of one sent from here also when nothing was.
  learn(view, {ordered = false, sent = false} = {}) {
    const known = this.byId.get(view.id) ?? {}, before = known.state;
    const late = !ordered && age(view) < age(known);
    this.byId.set(view.id, Object.assign(known, late ? {...view, ...known} : {...view, heard: performance.now()}));
    if (known.state === 'failed' && (sent || before && before !== 'failed')) this.onFailure(known);
    return known;
  }

  forget(id) { this.byId.delete(id); this.hidden.delete(id); }

  // Everything anew, as far back as it is known here; what is not there any more is forgotten. The last page.
  async reload(onGone) {
    const missing = new Set(this.byId.keys());
    let page, before = '';
    do {
      page = await json('GET', `v1/jobs?limit=${PAGE}${before}`);
      for (const view of page.jobs) {
        this.learn(view);
        missing.delete(view.id);
      }
      before = `&before=${page.next}`;
    } while (page.next && [...missing].some(id => this.byId.get(id)?.created <= page.jobs.at(-1).created));
    missing.forEach(onGone);
    return page;
  }

  // Jobs older than one, or those in whose photos words are found; the page as it was answered.
  async more({before, search = ''}) {
    const page = await json('GET', `v1/jobs?limit=${PAGE}${before ? `&before=${before}` : ''}${search ? `&search=${encodeURIComponent(search)}` : ''}`);
    page.jobs.forEach(view => this.learn(view));
    return page;
  }
}

const age = ({state, progress}) => ({queued: 0, running: 1 + (progress ?? 0)}[state] ?? (state ? Infinity : -1));
