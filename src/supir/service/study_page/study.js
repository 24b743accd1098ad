// The questions, one after the other. What is true is the server's: every answer of it says where we are.

import {View} from './view.js';

const SETTLE = 350;   // milliseconds for which a new question takes no answer: a double click is one answer
const STEP = 60;      // CSS pixels by which a key moves the pictures
const NAMES = {input: 'Input', original: 'Original'};
const HOLDS = {i: 'input', o: 'original'};

const element = id => document.getElementById(id);
const stage = element('stage'), help = element('help'), message = element('message');
const choices = [...document.querySelectorAll('[data-choice]')];
const captions = document.querySelectorAll('figcaption');
const view = new View(stage, () => element('zoom').setAttribute('aria-pressed', view.isActual));
const loaded = new Map();   // by question: a promise of its pictures

let state = {}, answerId = '', ready = false;

const pause = milliseconds => new Promise(done => setTimeout(done, milliseconds));
const say = text => { message.textContent = text; message.hidden = !text; };

// Asks until there is an answer: a server that is started again has missed nothing, and a vote that came twice is one.
async function ask(path, body) {
  const request = body && {
    method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body),
  };
  for (;;) {
    try {
      const response = await fetch(path, request);
      if (response.status < 500) return response;
    } catch { /* no server */ }
    say('The server does not answer. Your answers are safe; trying again …');
    await pause(1000);
  }
}

async function act(path, body) {
  settle(false);
  let response = await ask(path, body);
  if (!response.ok) response = await ask('state');   // answered in another window, or another study: see where we are
  await arrive(await response.json());
}

async function arrive(found) {
  state = found;
  const {joined, answered = 0, total, current} = state;
  element('bar').max = total;
  element('bar').value = answered;
  element('count').textContent = joined && current ? `${answered + 1} of ${total}` : '';
  element('undo').disabled = !state.last;
  for (const kind of Object.keys(NAMES)) element(kind).hidden = !state.beside?.[current]?.includes(kind);
  stage.classList.toggle('empty', !current);
  if (!joined) return help.showModal();
  if (!current) {
    return say(`Thank you! All ${total} questions are answered. You can close this page.`);
  }
  for (const known of loaded.keys()) if (![current, state.following].includes(known)) loaded.delete(known);
  await present(current);
}

// Both pictures appear at the same moment: which of them came first would tell something.
async function present(question) {
  stage.classList.add('waiting');
  let layers;
  while (!layers) {
    try {
      layers = await pictures(question);
    } catch {
      loaded.delete(question);
      say('The pictures cannot be loaded; trying again …');
      await pause(1000);
    }
  }
  say('');
  view.show(layers);
  release();
  stage.classList.remove('waiting');
  stage.focus({preventScroll: true});
  answerId = [...crypto.getRandomValues(new Uint8Array(16))].map(byte => byte.toString(16).padStart(2, '0')).join('');
  if (state.following) pictures(state.following).catch(() => loaded.delete(state.following));
  await pause(SETTLE);
  settle(true);
}

function pictures(question) {
  if (!loaded.has(question)) loaded.set(question, load(question));
  return loaded.get(question);
}

async function load(question) {
  const one = async (place, alt) => {
    const image = new Image();
    image.alt = alt;
    image.draggable = false;
    image.src = `picture/${question}/${place}`;
    await image.decode();
    return image;
  };
  const pane = async (side, name) => {
    const layers = {result: await one(side, `Picture ${name}`)};
    for (const kind of state.beside[question]) layers[kind] = await one(kind, NAMES[kind]);
    return layers;
  };
  return Promise.all([pane('left', 'A'), pane('right', 'B')]);
}

function settle(on) {
  ready = on;
  choices.forEach(button => { button.disabled = !on; });
}

function choose(choice) {
  if (ready && !help.open) act('vote', {question: state.current, choice, id: answerId});
}

function undo() {
  if (state.last && !help.open && (ready || !state.current)) act('undo', {question: state.last});
}

function hold(kind, on) {
  if (on && element(kind).hidden) return;
  view.reveal(on ? kind : 'result');
  element(kind).setAttribute('aria-pressed', on);
  captions.forEach((caption, k) => { caption.textContent = on ? NAMES[kind] : 'AB'[k]; });
}

const release = () => Object.keys(NAMES).forEach(kind => hold(kind, false));

choices.forEach(button => button.addEventListener('click', event => {
  if (event.detail < 2) choose(button.dataset.choice);   // not the second half of a double click
}));
element('undo').addEventListener('click', event => { if (event.detail < 2) undo(); });
element('zoom').addEventListener('click', () => view.toggle());
element('help-button').addEventListener('click', () => help.showModal());
help.addEventListener('close', () => {
  element('start').textContent = 'Go on';
  if (!state.joined) act('join', {});
});

for (const kind of Object.keys(NAMES)) {
  const button = element(kind);
  button.addEventListener('pointerdown', event => { button.setPointerCapture(event.pointerId); hold(kind, true); });
  for (const end of ['pointerup', 'pointercancel', 'blur']) button.addEventListener(end, () => hold(kind, false));
  button.addEventListener('contextmenu', event => event.preventDefault());
  // by keyboard and screen reader, which cannot hold it, a click turns it on and off
  button.addEventListener('click', event => {
    if (event.detail === 0) hold(kind, button.getAttribute('aria-pressed') !== 'true');
  });
}

const KEYS = {
  ArrowLeft: () => choose('left'),
  ArrowRight: () => choose('right'),
  ArrowDown: () => choose('tie'),
  ' ': () => choose('tie'),
  Backspace: undo,
  u: undo,
  z: () => view.toggle(),
  '+': () => view.zoom(1.25),
  '=': () => view.zoom(1.25),
  '-': () => view.zoom(0.8),
  0: () => view.fit(),
  '?': () => help.showModal(),
};
const MOVES = {ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP]};

document.addEventListener('keydown', event => {
  if (help.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.target.matches('button') && key === ' ') return;   // it presses the button
  const move = event.shiftKey && MOVES[key];
  if (move) view.pan(...move);
  else if (HOLDS[key]) { if (!event.repeat) hold(HOLDS[key], true); }
  else if (!KEYS[key]) return;
  else if (!event.repeat || '+=-'.includes(key)) KEYS[key]();
  event.preventDefault();
});
document.addEventListener('keyup', event => {
  const kind = HOLDS[event.key.toLowerCase()];
  if (kind) hold(kind, false);
});
window.addEventListener('blur', release);

arrive(await (await ask('state')).json());
