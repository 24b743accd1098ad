// Panes that show the same part of pictures of one size: one scale and one shift for all.

const FARTHEST = 8;      // device pixels for one of the picture, at most
const PIXELS_FROM = 2;   // from so many on single pixels are shown, unsmoothed

export class View {
  constructor(stage, onChange) {
    this.stage = stage;
    this.panes = [...stage.querySelectorAll('.pane')];
    this.sheets = this.panes.map(pane => pane.querySelector('.sheet'));
    this.onChange = onChange;
    this.count = this.panes.length;   // of them that are seen
    this.pointers = new Map();
    this.width = this.height = 0;
    this.fitted = true;
    this.tool = null;   // what takes the strokes of one finger, in place of moving the picture
    for (const pane of this.panes) this.listen(pane);
    new ResizeObserver(() => this.refresh()).observe(stage);
  }

  // Show pictures: for each pane an object of images by kind, result among those of the first. Empty ones are not seen.
  show(layers) {
    this.panes.forEach((pane, k) => { pane.hidden = !Object.keys(layers[k]).length; });
    this.count = this.panes.filter(pane => !pane.hidden).length;
    const {naturalWidth, naturalHeight} = layers[0].result;
    [this.width, this.height] = [naturalWidth, naturalHeight];
    this.sheets.forEach((sheet, k) => {
      sheet.style.width = `${naturalWidth}px`;
      sheet.style.height = `${naturalHeight}px`;
      for (const [kind, image] of Object.entries(layers[k])) image.dataset.kind = kind;
      sheet.replaceChildren(...Object.values(layers[k]));
    });
    this.fitted = true;
    this.refresh();
  }

  // Which of the layers is seen; the result where there is no such layer.
  reveal(kind) {
    for (const sheet of this.sheets) {
      const images = [...sheet.children];
      const wanted = images.find(image => image.dataset.kind === kind) ?? images[0];
      images.forEach(image => image.classList.toggle('shown', image === wanted));
    }
  }

  get pane() { return this.panes[0].getBoundingClientRect(); }   // all have one size
  get actual() { return 1 / window.devicePixelRatio; }           // CSS pixels for one of the picture at 1:1
  get bar() { return 0; }                                        // CSS pixels of what stands over each pane
  get whole() { return Math.min(this.pane.width / this.width, this.pane.height / this.height); }

  // As many columns as show the pictures largest.
  refresh() {
    if (!this.width) return;
    const {width, height} = this.stage.getBoundingClientRect(), {bar} = this;
    let best = {scale: 0, columns: 1};
    for (let columns = 1; columns <= this.count; columns++) {
      const rows = Math.ceil(this.count / columns);
      const scale = Math.min(width / columns / this.width, (height / rows - bar) / this.height);
      if (scale > best.scale) best = {scale, columns};
    }
    this.stage.style.gridTemplateColumns = `repeat(${best.columns}, minmax(0, 1fr))`;
    if (this.fitted) this.fit(); else this.place(this.scale, this.x, this.y);
  }

  fit() {
    if (!this.width) return;
    this.place(this.whole, 0, 0);
    this.fitted = true;
    this.onChange();
  }

  get isActual() { return !this.fitted && Math.abs(this.scale / this.actual - 1) < 1e-6; }

  // Between the whole picture and its actual pixels, around a point of the pane.
  toggle(point = this.middle) {
    if (this.isActual) this.fit(); else this.zoom(this.actual / this.scale, point);
  }

  get middle() { return {x: this.pane.width / 2, y: this.pane.height / 2}; }

  zoom(factor, point = this.middle) {
    const least = Math.min(this.whole, this.actual), most = Math.max(this.whole, FARTHEST * this.actual);
    const scale = Math.min(most, Math.max(least, this.scale * factor));
    const ratio = scale / this.scale;
    this.place(scale, point.x - (point.x - this.x) * ratio, point.y - (point.y - this.y) * ratio);
  }

  pan(dx, dy) { this.place(this.scale, this.x + dx, this.y + dy); }

  // What is larger than the pane covers it, what is smaller stands in its middle.
  place(scale, x, y) {
    const held = (shift, pane, size) => size <= pane ? (pane - size) / 2 : Math.min(0, Math.max(pane - size, shift));
    const {width, height} = this.pane;
    this.scale = scale;
    this.x = held(x, width, this.width * scale);
    this.y = held(y, height, this.height * scale);
    this.fitted = false;
    const transform = `translate(${this.x}px, ${this.y}px) scale(${scale})`;
    for (const sheet of this.sheets) sheet.style.transform = transform;
    this.stage.classList.toggle('pixels', scale / this.actual >= PIXELS_FROM);
    this.onChange();
  }

  // Where a pointer is, in pixels of a pane.
  within(pane, event) {
    const {left, top} = pane.getBoundingClientRect();
    return {x: event.clientX - left, y: event.clientY - top};
  }

  listen(pane) {
    const within = event => this.within(pane, event);
    pane.addEventListener('wheel', event => {
      event.preventDefault();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
      const speed = event.ctrlKey ? 0.01 : 0.002;   // a pinch on a touchpad comes as small steps with Ctrl
      this.zoom(Math.exp(-event.deltaY * lines * speed), within(event));
    }, {passive: false});
    pane.addEventListener('dblclick', event => { if (!this.tool) this.toggle(within(event)); });
    pane.addEventListener('pointerdown', event => {
      if (event.button) return;
      pane.setPointerCapture(event.pointerId);
      pane.classList.add('dragged');
      this.pointers.set(event.pointerId, within(event));
      if (this.pointers.size > 1) this.tool?.cancel(); else this.tool?.begin(within(event));
    });
    pane.addEventListener('pointermove', event => {
      if (!this.pointers.has(event.pointerId)) return;
      const before = this.grip();
      this.pointers.set(event.pointerId, within(event));
      if (this.tool?.stroke) { this.tool.go(within(event)); return; }
      const after = this.grip();
      this.pan(after.x - before.x, after.y - before.y);
      if (before.span) this.zoom(after.span / before.span, after);
    });
    for (const end of ['pointerup', 'pointercancel', 'lostpointercapture'])
      pane.addEventListener(end, event => {
        if (this.pointers.delete(event.pointerId)) this.tool?.end();
        pane.classList.remove('dragged');
      });
  }

  // Middle of the fingers, and how far two of them are apart.
  grip() {
    const [one, two = one] = this.pointers.values();
    return {x: (one.x + two.x) / 2, y: (one.y + two.y) / 2, span: Math.hypot(one.x - two.x, one.y - two.y)};
  }
}
