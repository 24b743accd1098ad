// What is removed is gone from sight at once, and for good when it was not taken back for a while, or the page is left.

import {ask} from './api.js';
import {put} from './text.js';

const WHILE = 15_000;   // milliseconds in which it can be taken back

export class Removal {
  // jobs: `Jobs`; onChange: something came or went; attempt: says what goes wrong
  constructor(jobs, onChange, attempt) {
    Object.assign(this, {jobs, onChange, attempt});
    this.going = [];
    this.toast = document.querySelector('#toast > div');
    this.toast.querySelector('button').addEventListener('click', () => this.undo());
    addEventListener('pagehide', () => this.commit({keepalive: true}));
  }

  remove(ids, count) {
    this.commit();
    this.going = ids;
    ids.forEach(id => this.jobs.hidden.add(id));
    put(this.toast.querySelector('span'), 'removed', {count});
    this.toast.hidden = false;
    this.timer = setTimeout(() => this.commit(), WHILE);
    this.onChange(ids);
  }

  undo() {
    this.going.forEach(id => this.jobs.hidden.delete(id));
    const back = this.going;
    this.settle();
    this.onChange(back);
    return back;
  }

  async commit({keepalive = false} = {}) {
    const ids = this.going;
    this.settle();
    await Promise.all(ids.map(id =>
      this.attempt(ask('DELETE', `v1/jobs/${id}`, {keepalive}).then(() => this.jobs.forget(id), error => {
        if (error.status === 404) { this.jobs.forget(id); return; }
        this.jobs.hidden.delete(id);   // it is there still
        this.onChange([id]);
        throw error;
      }))));
  }

  settle() {
    clearTimeout(this.timer);
    this.going = [];
    this.toast.hidden = true;
  }
}
