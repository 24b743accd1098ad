// What is painted on one photo: strokes, and the mask that they make.

import {element} from './element.js';
import {maskPicture, maskText} from './mask_png.js';

const LONGEST = 1024;    // pixels of a mask's longer side at most; none is larger than its photo
const MOST = 12_000;     // letters of a mask: all texts of a request have 16 KB
const COLOUR = '#2f9bff';

export class Painted {
  // width, height: of the photo. Points and sizes are in widths of it.
  constructor([width, height]) {
    this.ratio = height / width;
    this.longest = Math.min(LONGEST, Math.max(width, height));
    this.kind = 'protect';   // or `only`: what is painted alone is treated
    this.strokes = [];
    this.canvas = element('canvas');
    this.text = '';          // the mask as requests have it; empty where nothing is painted
    this.read = Promise.resolve();
    this.draw();
  }

  get region() { return this.text && `${this.text}; ${this.kind}`; }

  add(stroke) { this.strokes.push(stroke); this.draw(); }
  undo() { this.strokes.pop(); this.draw(); this.settle(); }
  clear() { if (this.text) { this.strokes.push({clears: true}); this.draw(); this.settle(); } }

  // As the region of an earlier request had it.
  async load(text) {
    const end = text.lastIndexOf(';');
    this.kind = text.slice(end + 1).trim();
    this.strokes = [{picture: await maskPicture(text.slice(0, end))}];
    this.draw();
    await this.settle();
  }

  draw(canvas = this.canvas, longest = this.longest) {
    const wide = this.ratio > 1 ? longest / this.ratio : longest;
    Object.assign(canvas, {width: Math.max(1, Math.round(wide)), height: Math.max(1, Math.round(wide * this.ratio))});
    for (const stroke of this.strokes) drawStroke(canvas, stroke);
    return canvas;
  }

  // Make the text anew; a mask that would be too long is made smaller.
  settle() {
    this.read = this.read.then(async () => {
      let {longest, canvas} = this;
      for (let text = this.empty ? '' : await maskText(canvas); ; text = await maskText(canvas)) {
        this.text = text;
        if (text.length <= MOST) return;
        longest *= 0.7;
        canvas = this.draw(element('canvas'), longest);
      }
    });
    return this.read;
  }

  get empty() {
    const {width, height} = this.canvas;
    return !this.canvas.getContext('2d').getImageData(0, 0, width, height).data.some(value => value);
  }
}

function drawStroke(canvas, {points, size, erases, clears, picture}) {
  const brush = canvas.getContext('2d', {willReadFrequently: true}), {width, height} = canvas;
  if (clears) brush.clearRect(0, 0, width, height);
  if (picture) stencil(brush, picture, width, height);
  if (!points) return;
  Object.assign(brush, {lineCap: 'round', lineJoin: 'round', lineWidth: Math.max(1, size * width), strokeStyle: COLOUR, fillStyle: COLOUR,
    globalCompositeOperation: erases ? 'destination-out' : 'source-over'});
  brush.beginPath();
  if (points.length > 1) {
    for (const {x, y} of points) brush.lineTo(x * width, y * width);
    brush.stroke();
  } else {   // a line to where it began is none
    brush.arc(points[0].x * width, points[0].y * width, brush.lineWidth / 2, 0, 2 * Math.PI);
    brush.fill();
  }
  brush.globalCompositeOperation = 'source-over';
}

// What is white in a picture, in our colour.
function stencil(brush, picture, width, height) {
  brush.imageSmoothingEnabled = false;
  brush.drawImage(picture, 0, 0, width, height);
  const found = brush.getImageData(0, 0, width, height), colour = [1, 3, 5].map(at => parseInt(COLOUR.slice(at, at + 2), 16));
  for (let k = 0; k < found.data.length; k += 4) found.data.set(found.data[k] < 128 ? [0, 0, 0, 0] : [...colour, 255], k);
  brush.putImageData(found, 0, 0);
}
