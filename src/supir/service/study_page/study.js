// The questions, one after the other. What is true is the server's: every answer of it says where we are.

import {View} from './view.js';

const SETTLE = 350;   // milliseconds for which a new question takes no answer: a double click is one answer
const STEP = 60;      // CSS pixels by which a key moves the pictures
const NAMES = {input: 'Input', original: 'Original'};
const HOLDS = {i: 'input', o: 'original'};

const element = id => document.getElementById(id);
const stage = element('stage'), help = element('help'), message = element('message');
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

// The page asks in one of two ways: for the better of A and B, or for the best of 1 to N, with the input as a last pane.
const first = await (await ask('state')).json(), several = first.at_once > 2;
const names = several ? [...'123456789'].slice(0, first.at_once) : ['A', 'B'];
build();
const choices = [...document.querySelectorAll('[data-place]')];
const view = new View(stage, () => element('zoom').setAttribute('aria-pressed', view.isActual));

function build() {
  document.body.classList.toggle('several', several);
  for (const found of document.querySelectorAll('.pairs, .best')) {
    if (found.matches(several ? '.pairs' : '.best')) found.remove(); else found.hidden = false;
  }
  document.title = document.querySelector('h1').textContent;
  for (const name of several ? [...names, NAMES.input] : names) {
    const pane = element('pane').content.firstElementChild.cloneNode(true);
    pane.querySelector('figcaption').textContent = name;
    message.before(pane);
  }
  if (several) names.forEach((name, place) => {
    const button = document.createElement('button');
    Object.assign(button, {textContent: name, disabled: true});
    button.setAttribute('aria-label', `${name} is best`);
    button.dataset.place = place;
    element('tie').before(button);
  });
}

async function act(path, body) {
  settle(false);
  let response = await ask(path, body);
  if (!response.ok) response = await ask('state');   // answered in another window, or another study: see where we are
  await arrive(await response.json());
}

async function arrive(found) {
  if (found.at_once !== first.at_once) return location.reload();   // another study, which asks in the other way
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

// All pictures appear at the same moment: which of them came first would tell something.
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
  const beside = state.beside[question];
  const pane = async (_, place) => {
    const layers = {};
    if (place < names.length) layers.result = await one(place, `Picture ${names[place]}`);
    else if (!beside.includes('input')) return layers;
    for (const kind of beside) layers[kind] = await one(kind, NAMES[kind]);
    return layers;
  };
  return Promise.all(view.panes.map(pane));
}

function settle(on) {
  ready = on;
  choices.forEach(button => { button.disabled = !on; });
}

function choose(place) {
  if (ready && !help.open) act('vote', {question: state.current, place, id: answerId});
}

function undo() {
  if (state.last && !help.open && (ready || !state.current)) act('undo', {question: state.last});
}

function hold(kind, on) {
  if (on && element(kind).hidden) return;
  view.reveal(on ? kind : 'result');
  element(kind).setAttribute('aria-pressed', on);
  view.panes.forEach((pane, k) => {
    pane.querySelector('figcaption').textContent = on ? NAMES[kind] : names[k] ?? NAMES.input;
  });
}

const release = () => Object.keys(NAMES).forEach(kind => hold(kind, false));

choices.forEach(button => button.addEventListener('click', event => {
  const {place} = button.dataset;
  if (event.detail < 2) choose(place ? Number(place) : null);   // not the second half of a double click
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

const NUMBERS = Object.fromEntries(names.map((_, place) => [place + 1, () => choose(place)]));
const KEYS = {
  ...NUMBERS,
  ...several ? {} : {ArrowLeft: NUMBERS[1], ArrowRight: NUMBERS[2]},
  ArrowDown: () => choose(null),
  ' ': () => choose(null),
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

arrive(first);
