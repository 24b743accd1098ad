// The stage: one to four panes that show the same part of their pictures, each with a before and an after.

import {View} from './view.js';
import {Compare} from './compare.js';
import {put} from './text.js';

export const MOST = 4;
const ALT = {before: 'before', after: 'after', audit: 'audit.layer'};   // by layer, the lowest last
const MARGIN = 12;   // pixels around a picture that is seen whole

export class Stage extends View {
  constructor(root, onChange) {
    const template = document.querySelector('#pane');
    for (let k = 0; k < MOST; k++) root.append(template.content.cloneNode(true));
    super(root, onChange);
    this.figures = [...root.querySelectorAll('.variant')];
    this.sheets = [...root.querySelectorAll('.sheet')];
    this.compare = new Compare(root);
    this.figures.forEach((figure, k) => {
      this.compare.adopt(figure.querySelector('.handle'), this.panes[k]);
      figure.hidden = k > 0;
      figure.addEventListener('click', event => {
        const what = event.target.closest('[data-do]')?.dataset.do;
        if (what) this.onAct(what, figure.dataset.job, figure);
      });
    });
    this.count = 1;
    this.onAct = () => {};
    new ResizeObserver(() => this.refresh()).observe(this.panes[0]);   // what stands below it grows and shrinks
  }

  // So many panes, for pictures of this size; where the size stays, so does what is seen of it.
  shape(count, width, height) {
    if (count === this.count && width === this.width && height === this.height) return;
    const same = Math.abs(width / height - this.width / this.height) < 0.01;
    const ratio = this.width / width;
    this.count = count;
    this.figures.forEach((figure, k) => { figure.hidden = k >= count; });
    [this.width, this.height] = [width, height];
    for (const sheet of this.sheets) Object.assign(sheet.style, {width: `${width}px`, height: `${height}px`});
    if (same && !this.fitted) this.scale *= ratio; else this.fitted = true;
    this.refresh();
  }

  refresh() {
    if (this.width) this.stage.classList.toggle('several', this.count > 1);
    super.refresh();
  }

  get bar() { return this.figures[0].offsetHeight - this.panes[0].offsetHeight; }

  get whole() {
    const {width, height} = this.pane;
    return Math.max(0.01, Math.min((width - 2 * MARGIN) / this.width, (height - 2 * MARGIN) / this.height));
  }

  get percent() { return Math.round(this.scale / this.actual * 100); }

  // Put a picture into a layer of a pane, decoded before it is seen; the one that was asked for last wins.
  async paint(k, layer, address) {
    const sheet = this.figures[k].querySelector(`.sheet.${layer}`);
    if (sheet.dataset.address === address) return;
    sheet.dataset.address = address;
    if (!address) { sheet.replaceChildren(); return; }
    const image = new Image();
    put(image, ALT[layer], {}, 'alt');
    image.draggable = false;
    image.src = address;
    await image.decode().catch(() => {});
    if (sheet.dataset.address === address) sheet.replaceChildren(image);
  }

  clear() {
    this.figures.forEach((figure, k) => {
      for (const layer of Object.keys(ALT)) this.paint(k, layer, '');
      figure.hidden = k > 0;
      delete figure.dataset.job;
    });
    this.count = 0;
    this.width = this.height = 0;
    this.fitted = true;
  }
}
