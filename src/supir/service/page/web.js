// The page: what is known of the jobs, which of them are on the stage, and what the user does with them.

import {again, ask, download, follow, json, upload} from './api.js';
import {listen} from './controls.js';
import {Form, element} from './form.js';
import {History} from './history.js';
import {Pictures} from './pictures.js';
import {MOST, Stage} from './stage.js';
import {isActive, progress, resultName, stem, title} from './words.js';

const $ = selector => document.querySelector(selector);
const jobs = new Map();        // by ID, as the service told of them
let photo = null;              // the source of the photo that is open
let shown = [];                // jobs on the stage
let against = 'input';
let opening = true;            // no worker has opened the weights yet
let sending = 0;
let form, stage, history;

const newest = () => [...jobs.values()].sort((one, other) => other.created.localeCompare(one.created));
const of = source => newest().filter(job => job.source === source);
const pictures = new Pictures(of, () => render());

// What is to be read, by what it is about: one does not hide another.
const messages = new Map();

function say(text, about = text) {
  messages.set(about, text);
  showMessages();
}

function unsay(about) {
  if (about) messages.delete(about); else messages.clear();
  showMessages();
}

function showMessages() {
  $('#message').hidden = !messages.size;
  $('#message > div').replaceChildren(...[...messages.values()].map(text => element('p', {textContent: text})));
}

const attempt = action => action.catch(error => { if (error.name !== 'AbortError') say(error.message); });

// Events come in order; an answer may come late, when events have told of what followed. A failure is said when it is
// first heard of, by whichever way, of a job that was not known as failed; of one sent from here also when nothing was.
function learn(view, {ordered = false, sent = false} = {}) {
  const known = jobs.get(view.id) ?? {}, before = known.state;
  const late = !ordered && age(view) < age(known);
  jobs.set(view.id, Object.assign(known, late ? {...view, ...known} : view));
  if (sent && view.warnings?.length) say(view.warnings.join('. '));
  if (known.state === 'failed' && (sent || before && before !== 'failed')) say(known.error);
  return known;
}

const age = ({state, step}) => ({queued: 0, running: 1 + (step ?? 0)}[state] ?? (state ? Infinity : -1));

// Everything anew, as far back as it is known here; what is not there any more is forgotten.
async function reload() {
  const missing = new Set(jobs.keys());
  let page, before = '';
  do {
    page = await json('GET', `v1/jobs?limit=60${before}`);
    for (const view of page.jobs) {
      learn(view);
      missing.delete(view.id);
    }
    before = `&before=${page.next}`;
  } while (page.next && [...missing].some(id => jobs.get(id)?.created <= page.jobs.at(-1).created));
  missing.forEach(forget);
  older(page);
  const {ready} = await json('GET', 'health');
  opening = !ready;
  if (opening) setTimeout(() => attempt(reload()), 1000);
  render();
}

function older(page) {
  $('#more').hidden = !page.next;
  $('#more').dataset.before = page.next ?? '';
}

// What the user does

async function open(files) {
  if (!sending) unsay();
  for (const file of files) {
    sending += 1;
    render();
    try {
      const job = learn(await upload(file, form.json()), {sent: true});
      pictures.open(job.source, file);
      show([job.id]);
    } catch (error) {
      say(error.message.includes(file.name) ? error.message : `${file.name}: ${error.message}`);
    } finally {
      sending -= 1;
      render();
    }
  }
}

async function restore() {
  if ($('#restore').disabled || !$('#panel').reportValidity()) return;
  unsay();
  $('#restore').disabled = true;
  const count = Number($('#variants :checked').value), from = pictures.kept(photo), made = [];
  try {
    for (let k = 0n; k < count; k++) {
      const job = learn(await again(from.id, form.json({seed: String(form.seed + k)}), $('#format').value), {sent: true});
      made.push(job.id);
      show(made);
    }
  } catch (error) {
    say(error.message);
  }
  render();
}

const act = {
  cancel: job => ask('POST', `v1/jobs/${job.id}/cancel`).then(answer => answer.json()).then(view => learn(view)),
  download: job => job.until === 'preview'
    ? download(`v1/jobs/${job.id}/preview`, `${stem(job.name)}.preview.png`)
    : download(`v1/jobs/${job.id}/result`, resultName(job)),
  settings: async job => form.fill(job.options),
  delete: async job => {
    if (!confirm(`Delete ${job.until === 'preview' ? 'this photo' : 'this result'} from the history?`)) return;
    await ask('DELETE', `v1/jobs/${job.id}`);
    forget(job.id);
  },
};

async function cancel() {
  for (const job of of(photo).filter(isActive)) await attempt(act.cancel(job));
  render();
}

function forget(id) {
  const source = jobs.get(id)?.source;
  jobs.delete(id);
  shown = shown.filter(each => each !== id);
  if (!shown.length) show(of(source).slice(0, 1).map(job => job.id));
  render();
}

// Of one photo, so many as there are panes.
function show(ids) {
  shown = ids.slice(-MOST);
  const source = jobs.get(shown[0])?.source ?? null;
  if (source !== photo) stage.fitted = true;
  if (source !== photo && source) describe(source);
  photo = source;
  render();
}

function toggle(id) {
  const source = jobs.get(id).source;
  const same = shown.filter(each => jobs.get(each).source === source && jobs.get(each).until === 'result');
  show(same.includes(id) && same.length > 1 ? same.filter(each => each !== id) : [...new Set([...same, id])]);
}

function describe(source) {
  const {caption} = pictures.previewOf(source) ?? {};
  if (caption !== null && caption !== undefined) form.caption(caption); else form.caption('');
}

// What is seen

function render() {
  const panes = shown.map(id => jobs.get(id)).filter(Boolean);
  document.body.toggleAttribute('data-empty', !panes.length);
  if (!panes.length) stage.clear();
  panes.forEach((job, k) => caption(stage.figures[k], job));
  if (panes.length) paint(panes);
  history.show(newest(), shown);
  const active = photo ? of(photo).filter(isActive) : [];
  $('#cancel').hidden = !active.length;
  $('#cancel').textContent = active.length > 1 ? 'Cancel all' : 'Cancel';
  $('#restore').disabled = !photo || !pictures.kept(photo) || sending > 0;
  $('#status').textContent = status(active);
  const first = panes.find(job => job.state === 'running' && job.step);
  document.title = first ? `${Math.round(100 * first.step / first.num_steps)} % – ${first.name}` : 'supir';
}

function status(active) {
  if (sending) return 'sending the photo …';
  if (active.length) return active.length > 1 ? `${active.length} at work or waiting` : progress(active[0], opening);
  return opening ? 'the model is being opened' : 'ready';
}

function caption(figure, job) {
  const share = job.state === 'running' && job.until === 'result' ? job.step / job.num_steps : null;
  const bar = figure.querySelector('progress'), active = isActive(job);
  figure.dataset.job = job.id;
  figure.dataset.state = job.state;
  bar.hidden = !active;
  if (share === null) bar.removeAttribute('value'); else bar.value = share;
  figure.querySelector('.what').textContent = [title(job), progress(job, opening)].filter(Boolean).join(' · ');
  figure.querySelector('.tag.right').textContent = job.until === 'preview' || job.state !== 'done' && !job.step
    ? 'Clean preview' : job.state === 'done' ? 'After' : `Step ${job.step}`;
  figure.querySelector('.tag.left').textContent = against === 'preview' ? 'Clean preview' : 'Photo';
  for (const [name, fits] of Object.entries({
    cancel: active, settings: job.until === 'result' && Boolean(job.options), delete: !active, download: job.state === 'done',
  })) figure.querySelector(`[data-do=${name}]`).hidden = !fits;
}

async function paint(panes) {
  const [width, height] = pictures.size(panes[0]);
  stage.shape(panes.length, width, height);
  panes.forEach((job, k) => {
    put(k, 'before', pictures.before(job, against));
    put(k, 'after', pictures.after(job));
  });
}

// Pictures come when they are there; until then what is seen is of before, and the pane is busy.
const coming = new Map();

async function put(k, layer, address) {
  const figure = stage.figures[k], count = change => {
    coming.set(figure, (coming.get(figure) ?? 0) + change);
    figure.setAttribute('aria-busy', coming.get(figure) > 0);
  };
  count(1);
  try {
    await stage.paint(k, layer, await address ?? '');
  } catch { /* there is none, or not any more */ }
  count(-1);
}

// What comes

function heard(kind, told) {
  if (kind === 'deleted') { if (jobs.has(told.id)) forget(told.id); return; }
  const {caption: described} = jobs.get(told.id) ?? {};
  const job = learn(told, {ordered: true});
  if (!job.options) attempt(json('GET', `v1/jobs/${job.id}`).then(view => learn(view)).then(render));
  if (job.caption !== null && job.caption !== described && job.source === photo) describe(photo);
  if (!isActive(job)) pictures.steps.delete(job.id);
  opening &&= job.state !== 'running';
  render();
}

async function start() {
  form = new Form($('#panel'), await json('GET', 'v1/options'));
  stage = new Stage($('#panes'), () => {
    if (!stage?.width) return;
    $('#panes').classList.toggle('fitted', stage.fitted);
    $('#zoom').textContent = `${stage.percent} %`;
    $('#actual').setAttribute('aria-pressed', stage.isActual);
  });
  stage.onAct = (what, id) => attempt(act[what](jobs.get(id))).then(render);
  history = new History($('#history'), {onOpen: id => show([id]), onToggle: toggle});
  listen(stage, {onFiles: open, onRestore: restore, onAgainst: kind => { against = kind; render(); }});
  $('#panel').addEventListener('submit', event => { event.preventDefault(); restore(); });
  $('#cancel').addEventListener('click', cancel);
  $('#message button').addEventListener('click', () => unsay());
  $('#more').addEventListener('click', () => attempt(
    json('GET', `v1/jobs?limit=60&before=${$('#more').dataset.before}`).then(page => { page.jobs.forEach(view => learn(view)); older(page); render(); })));
  $('#status').title = `model: ${form.told.model}`;
  follow({
    onOpen: async () => { unsay('connection'); await reload(); if (!photo && newest().length) show([newest()[0].id]); },
    onEvent: heard,
    onLost: error => say(`${error.message ?? error} Trying again …`, 'connection'),
  });
}

attempt(start());
