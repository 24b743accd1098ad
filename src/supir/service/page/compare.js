// The line between before and after: one place for all panes, moved by pointer and by keys.

import {t} from './text.js';

export class Compare {
  constructor(root, onChange) {
    this.root = root;
    this.onChange = onChange;
    this.held = false;
    this.to(50);
  }

  // A handle of a pane.
  adopt(handle, pane) {
    handle.addEventListener('pointerdown', event => {
      if (event.button) return;
      event.stopPropagation();   // the pane would move the picture
      event.preventDefault();
      handle.focus();
      handle.setPointerCapture(event.pointerId);
      this.dragging = true;
    });
    handle.addEventListener('pointermove', event => {
      event.stopPropagation();
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const {left, width} = pane.getBoundingClientRect();
      this.to((event.clientX - left) / width * 100);
    });
    handle.addEventListener('dblclick', event => event.stopPropagation());
    handle.addEventListener('keydown', event => {
      const step = event.shiftKey ? 0 : {ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10}[event.key];
      const end = {Home: 0, End: 100}[event.key];
      if (step || end !== undefined) {
        event.preventDefault();
        event.stopPropagation();
        this.to(end ?? this.percent + step);
      }
    });
    this.handles().forEach(each => this.say(each));
  }

  handles() { return [...this.root.querySelectorAll('.handle')]; }

  to(percent) {
    this.percent = Math.min(100, Math.max(0, percent));
    this.root.style.setProperty('--cut', `${this.percent}%`);
    this.handles().forEach(each => this.say(each));
    this.onChange?.();
  }

  say(handle) {
    handle.setAttribute('aria-valuenow', Math.round(this.percent));
    handle.setAttribute('aria-valuetext', t('handle.value', {percent: Math.round(this.percent)}));
  }

  // Nothing but the picture before, while it lasts.
  hold(held) {
    this.held = held;
    this.root.classList.toggle('held', held);
  }
}
