// The page: which photos are open and chosen, and what the user does with them.

import {again, ask, download, downloadZip, follow, json, upload} from './api.js';
import {Brush} from './brush.js';
import {Captions} from './captions.js';
import {Closer} from './closer.js';
import {listen} from './controls.js';
import {Form} from './form.js';
import {History} from './history.js';
import {Jobs} from './jobs.js';
import {Messages} from './messages.js';
import {phone} from './phone.js';
import {Pictures} from './pictures.js';
import {Plan} from './plan.js';
import {Removal} from './removal.js';
import {Shown} from './shown.js';
import {MOST, Stage} from './stage.js';
import {number, put, startSpeaking, unput} from './text.js';
import {hasPreview, isActive, isPhoto, percent, progress, resultName, stem} from './words.js';

const $ = selector => document.querySelector(selector);
const messages = new Messages($('#message'));
const jobs = new Jobs(job => messages.say('JobFailedError', job.error));
const pictures = new Pictures(source => jobs.of(source), () => render());
const captions = new Captions(jobs);
let photo = null;              // the source of the photo that is open
let shown = [];                // jobs on the stage
let chosen = new Set();        // sources of the photos that one button restores
let against = 'input';
let invented = false;          // the layer of audits is shown
let opening = true;            // no worker has opened the weights yet
let sending = 0;
let form, stage, history, plan, removal, shownJobs, brush, closer;

const attempt = action => action.catch(error => { if (error.name !== 'AbortError') messages.failed(error); });
const photos = () => [...chosen].filter(source => jobs.holder(source));
const times = () => Number($('#variants :checked').value);

// What the user does

async function open(files) {
  if (!sending) messages.clear();
  await removal.commit();   // or what is sent again would be found in what is going
  const opened = [];
  for (const file of files) {
    sending += 1;
    render();
    try {
      const job = jobs.learn(await upload(file, form.json({prompt: '', audit: false})), {sent: true});
      pictures.open(job.source, file);
      opened.push(job.source);
      chosen = new Set(opened);
      if (opened.length === 1) show([job.id]);
    } catch (error) {
      messages.failed(error, file.name);
    } finally {
      sending -= 1;
      render();
    }
  }
}

async function restore() {
  if ($('#restore').disabled || !$('#panel').reportValidity()) return;
  messages.clear();
  $('#restore').disabled = true;
  brush.take(false);
  await Promise.all([removal.commit(), brush.settled()]);
  const made = new Map(), before = new Set(jobs.newest().map(job => job.id));
  let repeated = 0;
  try {
    for (const source of photos()) {
      made.set(source, []);
      for (let k = 0n; k < times(); k++) {
        const view = await again(jobs.holder(source).id, optionsFor(source, {seed: String(form.seed + k)}), {format: form.format});
        if (view.warnings.length) messages.say('warning', view.warnings.join('. '));
        repeated += before.has(view.id);
        made.get(source).push(jobs.learn(view, {sent: true}).id);
        if (source === photo) show(made.get(source));
        else render();
      }
    }
  } catch (error) {
    messages.failed(error);
  }
  if (repeated) messages.note('repeated', {count: repeated});
  render();
}

// What is asked for of a photo: its own caption, what is painted on it, and its own size where nobody has said one.
function optionsFor(source, changes = {}) {
  const region = [form.set.get('region'), brush.region(source)].filter(Boolean).join(' | ') || undefined;
  const advised = form.set.has('scale') ? undefined : form.scale.advised(pictures.sizeOf(source), form.ofPreset('scale'));
  return form.json({prompt: hears() ? captions.of(source) : undefined, scale: advised, region, ...changes});
}

const act = {
  cancel: job => ask('POST', `v1/jobs/${job.id}/cancel`).then(answer => answer.json()).then(view => jobs.learn(view)),
  download: (job, figure) => isPhoto(job)
    ? download(`v1/jobs/${job.id}/preview`, `${stem(job.name)}.preview.png`)
    : figure.querySelector('[name=notice]').checked ? downloadZip([job.id], `${stem(job.name)}.restored.zip`, true)
      : download(`v1/jobs/${job.id}/result`, resultName(job)),
  settings: async job => {
    captions.type(job.source, job.options.prompt ?? '');
    form.fill(job);
    form.put('region', await brush.fill(job.options.region ?? '') || undefined);
  },
  remove: async job => {
    if (isPhoto(job)) removal.remove(jobs.whole(job.source), 1);
    else removal.remove([job.id], 1);
  },
};

async function cancel() {
  for (const job of jobs.active(photos())) await attempt(act.cancel(job));
  render();
}

function forget(id) {
  const source = jobs.byId.get(id)?.source;
  jobs.forget(id);
  goneFromSight([id], source);
}

// What is on the stage no more is followed by what is left of its photo, or of the next.
function goneFromSight(ids, source = photo) {
  shown = shown.filter(id => jobs.get(id));
  for (const each of [...chosen]) if (!jobs.of(each).length) chosen.delete(each);
  if (!shown.length) {
    const next = jobs.of(source)[0] ?? jobs.newest()[0];
    show(next ? [next.id] : []);
  }
  render();
}

// Of one photo, so many as there are panes.
function show(ids) {
  shown = ids.slice(-MOST);
  const source = jobs.get(shown[0])?.source ?? null;
  if (source !== photo) {
    stage.fitted = true;
    photo = source;
    if (source && !chosen.has(source)) chosen = new Set([source]);
    describe();
  }
  if (shown.length > 1) brush.take(false);
  render();
  history.reveal(shown[0]);
}

function toggle(id) {
  const source = jobs.get(id).source;
  const same = shown.filter(each => jobs.get(each).source === source && !isPhoto(jobs.get(each)));
  show(same.includes(id) && same.length > 1 ? same.filter(each => each !== id) : [...new Set([...same, id])]);
}

function choose(source, wanted) {
  if (wanted) chosen.add(source); else chosen.delete(source);
  if (!chosen.size && photo) chosen.add(photo);
  render();
}

// To the next photo of the strip, or the one before, as it was made last.
function step(by) {
  const source = history.beside(photo, by), [latest] = source ? jobs.of(source) : [];
  if (latest && source !== photo) { chosen = new Set([source]); show([latest.id]); }
}

let searched = '';

async function search(text) {
  searched = text;
  if (!text) {
    history.found = null;
    render();
    return;
  }
  const page = await jobs.more({search: text}).catch(error => { messages.failed(error); return null; });
  if (!page || searched !== text) return;
  history.found = new Set(page.jobs.map(job => job.source));
  older(page);
  render();
}

async function more() {
  const page = await jobs.more({before: $('#more').dataset.before, search: searched});
  if (searched) page.jobs.forEach(job => history.found.add(job.source));
  older(page);
  render();
}

const hears = () => form.told.unused.prompt === undefined;

// A photo's own words stand in the form.
function describe() {
  if (!form || !hears()) return;
  const words = photo ? captions.of(photo) : '';
  if (words) form.set.set('prompt', words); else form.set.delete('prompt');
  form.show();
}

// What is seen

function render() {
  if (!form) return;
  const panes = shown.map(id => jobs.get(id)).filter(Boolean);
  shownJobs.show(panes, {against, opening, invented});
  closer.of(closelySeen(panes));
  $('#invented').hidden = !shown.some(id => jobs.get(id)?.audit);
  $('#invented').setAttribute('aria-pressed', invented);
  history.show(jobs.newest(), shown, chosen);
  const all = photos(), active = jobs.active(all);
  $('#cancel').hidden = !active.length;
  put($('#cancel'), active.length > 1 ? 'cancel.all' : 'cancel');
  $('#restore').disabled = !all.length || sending > 0;
  put($('#restore'), all.length > 1 ? 'restore.several' : 'restore', {count: all.length});
  brush.of(photo, pictures.sizes.get(photo));
  $('#brush').disabled = !brush.painted;
  $('#brush').setAttribute('aria-pressed', brush.on);
  const kind = brush.region(photo) && brush.painted.kind;
  if (kind) put($('#painted'), `painted.${kind}`); else unput($('#painted'));
  const size = photo && pictures.sizeOf(photo);
  if (size) form.advise('scale', form.scale.advised(size, form.ofPreset('scale')));
  form.scale.of(all.length > 1 ? null : size);
  plan.show(all.map(source => {
    const [width, height] = pictures.sizeOf(source), options = optionsFor(source, {prompt: '', seed: '0', region: undefined});   // what is kept takes no time
    return {width, height, options, scale: Number(form.value('scale'))};
  }), times());
  batch(all);
  status(active);
}

// The photo whose clean preview alone is seen, where the result would be larger than that; null: nothing to look closer at.
function closelySeen([job, another]) {
  if (!job || another || !isPhoto(job) || !hasPreview(job) || !job.options) return null;
  if (form.value('first') || form.value('region') || [true, 'true'].includes(form.value('reference_quirks'))) return null;
  const size = pictures.sizeOf(job.source), scale = Number(form.value('scale')), made = Number(job.options.scale);
  if (!size || !(scale > made)) return null;
  const options = form.json({prompt: '', audit: false, seed: '0', scale: String(scale)});
  return {job, size, scale, made, options, least: Number(form.value('min_size'))};
}

function batch(all) {
  const done = all.map(source => jobs.done(source)).filter(Boolean), active = jobs.active(all);
  $('#batch').hidden = all.length < 2;
  put($('#batch-state'), 'batch.state', {count: all.length, done: number(done.length), active: number(active.length)});
  $('#batch-download').disabled = !done.length;
}

function status(active) {
  const line = $('#status');
  const one = active.length === 1 && active[0];
  if (sending) put(line, 'status.sending');
  else if (active.length > 1) put(line, 'status.several', {count: active.length});
  else if (one) put(line, 'status.one', {get what() { return progress(one, opening, {numbers: false}); }});   // it is read aloud
  else put(line, opening ? 'state.opening' : 'status.ready');
  const first = shown.map(id => jobs.get(id)).find(job => job?.state === 'running' && !isPhoto(job));
  document.title = first ? `${percent(first)} – ${first.name}` : 'supir';
}

function older(page) {
  $('#more').hidden = !page.next;
  $('#more').dataset.before = page.next ?? '';
}

// What comes

async function reload() {
  older(await jobs.reload(forget));
  const {ready} = await json('GET', 'health');
  opening = !ready;
  if (opening) setTimeout(() => attempt(reload()), 1000);
  render();
}

function heard(kind, told) {
  if (kind === 'deleted') { if (jobs.byId.has(told.id)) forget(told.id); return; }
  const before = jobs.byId.get(told.id)?.state;
  const job = jobs.learn(told, {ordered: true});
  if (!job.options) attempt(json('GET', `v1/jobs/${job.id}`).then(view => jobs.learn(view)).then(render));
  if (kind === 'caption' && job.source === photo) describe();
  if (!isActive(job)) pictures.steps.delete(job.id);
  if (job.state === 'done' && before !== 'done' && !isPhoto(job)) plan.forget();
  opening &&= job.state !== 'running';
  render();
}

async function start() {
  await startSpeaking($('#language'), () => { stage.compare.to(stage.compare.percent); form.show(); messages.tell(); render(); });
  const told = await json('GET', 'v1/options');
  plan = new Plan($('#plan'));
  const made = new Form($('#panel'), told, name => {
    if (name === 'prompt' && photo) captions.type(photo, form.value('prompt') ?? '');
    if (form) render();
  });
  stage = new Stage($('#panes'), () => {
    if (!stage?.width) return;
    $('#panes').classList.toggle('fitted', stage.fitted);
    $('#zoom').textContent = `${stage.percent} %`;
    $('#actual').setAttribute('aria-pressed', stage.isActual);
    closer?.look();
  });
  closer = new Closer(stage, jobs, told.crop_pixels, attempt);
  shownJobs = new Shown(stage, pictures, jobs, told);
  removal = new Removal(jobs, ids => goneFromSight(ids), attempt);
  stage.onAct = (what, id, figure) => attempt(act[what](jobs.get(id), figure)).then(render);
  history = new History($('#history'), {onOpen: id => show([id]), onToggle: toggle, onChoose: choose, onSearch: search});
  brush = new Brush(stage, $('#brushes'), render);
  form = made;
  listen(stage, {
    onFiles: open, onRestore: restore, onStep: step, onUndo: () => removal.undo(),
    onAgainst: kind => { against = kind; render(); },
    brush,
    onBrush: () => { if (!brush.on) show(shown.slice(0, 1)); brush.take(!brush.on); },
    onInvented: () => { if (!$('#invented').hidden) { invented = !invented; render(); } },
    onRemove: () => shown.length && attempt(act.remove(jobs.get(shown[0]))),
  });
  phone($('#phone'), $('#phone-button'), told.address);
  $('#variants').addEventListener('change', render);
  $('#panel').addEventListener('submit', event => { event.preventDefault(); restore(); });
  $('#cancel').addEventListener('click', cancel);
  $('#batch-download').addEventListener('click', () => {
    const done = photos().map(source => jobs.done(source)).filter(Boolean).map(job => job.id);
    attempt(downloadZip(done, 'restored.zip', false));
  });
  $('#batch-remove').addEventListener('click', () => removal.remove(photos().flatMap(source => jobs.whole(source)), photos().length));
  $('#more').addEventListener('click', () => attempt(more()));
  put($('#status'), 'status.model', {model: told.model}, 'title');
  render();
  setInterval(() => { if (jobs.newest().some(job => job.state === 'running')) render(); }, 1000);   // what is at work moves on
  follow({
    onOpen: async () => {
      messages.unsay('connection');
      await reload();
      if (!photo && jobs.newest().length) show([jobs.newest()[0].id]);
    },
    onEvent: heard,
    onLost: error => messages.lost(error),
  });
}

attempt(start());
