// What is to be read, by what it is about: one does not hide another. What is wrong is said in the page's language; the
// service's own sentence, which is English, says what exactly.

import {element} from './element.js';
import {has, put} from './text.js';

export class Messages {
  constructor(box) {
    this.box = box;
    this.all = new Map();
    box.querySelector('button').addEventListener('click', () => this.clear());
  }

  say(kind, detail, {file = '', about = `${kind} ${file} ${detail}`} = {}) {
    this.all.set(about, {key: has(`error.${kind}`) ? `error.${kind}` : 'error.other', detail, file});
    this.tell();
  }

  note(key, given) { this.all.set(key, {key, given, detail: '', file: ''}); this.tell(); }

  failed(error, file = '') { this.say(error.kind ?? 'page', error.message, {file: error.message.includes(file) ? '' : file}); }

  lost(error) { this.say(error.kind === 'key' ? 'key' : error.status ? error.kind : 'unreachable', error.status ? error.message : '', {about: 'connection'}); }

  unsay(about) { this.all.delete(about); this.tell(); }
  clear() { this.all.clear(); this.tell(); }

  tell() {
    this.box.hidden = !this.all.size;
    this.box.querySelector('div').replaceChildren(...[...this.all.values()].map(({key, given, detail, file}) => {
      const line = element('p');
      line.append(put(element('strong'), key, given));
      if (detail) line.append(' ', element('span', {textContent: `${file ? `${file}: ` : ''}${detail}`, translate: false, lang: 'en'}));
      return line;
    }));
  }
}
