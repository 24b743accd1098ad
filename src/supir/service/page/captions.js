// The words of each photo: those that were typed, kept in this browser; else those of its last result; else a captioner's.

const KEPT = 'supir-captions';
const MOST = 200;   // photos whose words are kept

export class Captions {
  constructor(jobs) {
    this.jobs = jobs;
    try { this.typed = new Map(JSON.parse(localStorage.getItem(KEPT) ?? '[]')); } catch { this.typed = new Map(); }
  }

  of(source) {
    const made = this.jobs.results(source).find(job => job.options)?.options.prompt;
    return this.typed.get(source) ?? (made || this.jobs.photo(source)?.caption || '');
  }

  type(source, text) {
    this.typed.delete(source);
    this.typed.set(source, text);
    while (this.typed.size > MOST) this.typed.delete(this.typed.keys().next().value);
    try { localStorage.setItem(KEPT, JSON.stringify([...this.typed])); } catch { /* storage is denied, or full */ }
  }
}
