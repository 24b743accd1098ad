// What is said of a job.

import {number, t} from './text.js';

const LONG = 40;              // signs of a caption that are shown
const SAID = ['prompt', 'negative_prompt', 'positive_prompt', 'tile_prompts'];

export const isActive = job => job.state === 'queued' || job.state === 'running';
export const isPhoto = job => job.until === 'preview';
export const hasPreview = job => Boolean(job.preview) || isPhoto(job) && job.state === 'done';
export const stem = name => name.replace(/\.[^.]*$/, '') || name;
export const resultName = job => `${stem(job.name)}.restored${job.format}`;

// With numbers: how much of it is done, and for how long it will go on.
export function progress(job, opening, {numbers = true} = {}) {
  if (job.state === 'queued') {
    if (opening) return t('state.opening');
    if (job.position) return t('state.before', {count: job.position});
    return job.waits_for ? t('state.waiting', {what: waitedFor(job.waits_for)}) : t('state.next');
  }
  if (job.state === 'running') {
    return isPhoto(job) || !numbers ? doing(job) : `${doing(job)}, ${percent(job)}${remaining(job)}`;
  }
  return ['failed', 'cancelled', 'expired'].includes(job.state) ? t(`state.${job.state}`) : '';
}

function doing(job) {
  if (isPhoto(job) || !job.preview) return t('state.preview');
  if (isAudited(job)) return t('state.auditing');
  if (job.step >= job.num_steps) return t('state.finishing');
  return job.num_steps > 1 ? t('state.step', {step: number(job.step), steps: number(job.num_steps)}) : t('state.restoring');
}

// How much of the work is done, and for how long it will go on, by now: as was told last, moved on since.
const UNTOLD = 0.9;   // of the rest, what may pass for done before that is told

function reached({progress: done = 0, seconds_left: left, heard}) {
  const passed = left ? Math.min((performance.now() - heard) / 1000 / left, UNTOLD) : 0;
  return {done: done + (1 - done) * passed, left: left && (1 - passed) * left};
}

const isAudited = job => job.state === 'running' && job.audit_progress != null;   // restored already
export const share = job => isAudited(job) ? job.audit_progress : reached(job).done;
export const percent = job => `${number(Math.floor(100 * share(job)))} %`;

// The service says it in English.
function waitedFor(text) {
  const key = `waits.${text.replaceAll(' ', '-')}`;
  return t(key) === key ? text : t(key);
}

// In a word or two: for a photo, a strip of pictures, a tab.
export function short(job, others = []) {
  if (isPhoto(job)) return hasPreview(job) ? t('preview') : t('photo');
  return distinction(job, others);
}

// Everything that tells a result from others, in the order in which people ask.
export function facts(job, size, {told}) {
  const options = job.options;
  if (!options) return [];
  const [width, height] = size, found = [];
  if (job.preset) found.push(presetName(job.preset));
  found.push(t('fact.size', {scale: number(Number(options.scale)), width, height}));
  if (job.started && job.finished) found.push(duration((Date.parse(job.finished) - Date.parse(job.started)) / 1000));
  found.push(t('fact.seed', {seed: options.seed}));
  const own = job.preset ? told.presets[job.preset] : {};
  for (const [name, value] of Object.entries(options)) {
    if (['scale', 'seed', 'prompt'].includes(name) || !job.preset || String(value) === String(own[name])) continue;
    found.push(t('fact.option', {name: optionName(name), value: SAID.includes(name) ? quoted(value ?? '') : shown(name, value)}));
  }
  if (options.prompt) found.push(quoted(options.prompt));
  return found;
}

// What tells a result of a photo from its others: the preset and the scale where they differ, what is set otherwise than
// for the oldest of the same preset, and the seed.
function distinction(job, others) {
  if (!job.options) return t('fact.seed', {seed: '…'});
  const results = others.filter(other => !isPhoto(other) && other.options), peers = results.filter(other => other.preset === job.preset);
  const all = job => ({...job.options, ...job.audit_options});
  const is = (other, name) => String(all(other)[name]) === String(all(job)[name]);
  const parts = [];
  if (job.preset && peers.length < results.length) parts.push(presetName(job.preset));
  if (results.some(other => !is(other, 'scale'))) parts.push(t('fact.scale', {scale: number(Number(job.options.scale))}));
  if (job.audit_options && results.some(other => !other.audit_options)) parts.push(t('fact.audited'));
  for (const name of Object.keys(peers[0]?.audit_options ? all(job) : job.options)) {
    if (['scale', 'seed'].includes(name) || !peers.length || is(peers[0], name)) continue;
    const value = all(job)[name];
    parts.push(SAID.includes(name) ? quoted(value, 12) : t('fact.option', {name: optionName(name), value: shown(name, value)}));
  }
  if (!parts.length || results.some(other => !is(other, 'seed'))) parts.push(t('fact.seed', {seed: job.options.seed}));
  return parts.join(' · ');
}

export const presetName = name => t(`preset.${name}`);
export const optionName = name => { const key = `option.${name}`; return t(key) === key ? name.replaceAll('_', ' ') : t(key); };
const MASK = /data:image\/png;base64,[^;|]*/g;
const shown = (name, value) => name === 'region' ? value.replace(MASK, () => t('fact.painted')) : value ?? t('off');
const quoted = (text, most = LONG) => !text ? t('fact.wordless') : t('fact.words', {text: text.length > most ? `${text.slice(0, most - 1)}…` : text});

export function duration(seconds) {
  if (seconds < 90) return t('time.seconds', {count: number(Math.max(1, Math.round(seconds)))});
  if (seconds < 5400) return t('time.minutes', {count: number(Math.round(seconds / 60))});
  return t('time.hours', {count: number(seconds / 3600, {maximumFractionDigits: 1})});
}

function remaining(job) {
  const {left} = reached(job);
  return left >= 2 ? `, ${t('time.left', {time: duration(left)})}` : '';
}
