// The service's own HTTP interface: requests, errors as sentences, events, pictures.

const KEPT = 24;      // pictures that are held in memory beside those on the screen
const SCREEN = Math.min(4096, Math.max(512, Math.round(Math.max(screen.width, screen.height) * devicePixelRatio)));
const PREVIEW = 4;    // seconds that a clean preview may take
const AGAIN = 1000;   // milliseconds until a lost connection is tried again

// kind: a class of the service's errors, or `key`, or `unreachable`; the sentence is the service's, in English.
export class Refused extends Error {
  constructor(detail, status, kind) { super(detail); Object.assign(this, {status, kind}); }
}

// Where the page is, under whatever path: all addresses are relative to it.
const base = new URL('.', import.meta.url);
const KEY = base.pathname === '/' ? 'supir-key' : `supir-key ${base.pathname}`;

// The key stands behind the # of the address that was printed; it is kept for this browser, and taken out of sight.
// A browser that keeps nothing leaves it where it is.
function ownKey() {
  const given = new URLSearchParams(location.hash.slice(1)).get('key');
  try {
    if (!given) return localStorage.getItem(KEY);
    localStorage.setItem(KEY, given);
    history.replaceState(null, '', location.pathname);
  } catch { /* storage is denied, or full */ }
  return given;
}
const key = ownKey();
addEventListener('hashchange', () => { if (location.hash.includes('key=')) location.reload(); });

export async function ask(method, path, {body, headers = {}, ...more} = {}) {
  if (key) headers.Authorization = `Bearer ${key}`;
  let answer;
  try {
    answer = await fetch(new URL(path, base), {method, body, headers, ...more});
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refused('', 0, 'unreachable');
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  if (answer.status === 401) throw new Refused('', 401, 'key');
  throw new Refused(told.detail ?? String(answer.status), answer.status, told.error ?? 'ServiceError');
}

// JSON numbers of 16 digits and more, such as large seeds, would be rounded: they are kept as text.
export async function json(method, path, more) {
  const text = await (await ask(method, path, more)).text();
  return JSON.parse(text.replace(/"(seed|maximum)":\s?(\d{16,})/g, '"$1":"$2"'));
}

export const upload = (file, options) => {
  const body = new FormData();
  body.append('file', file, file.name);
  body.append('until', 'preview');
  body.append('preview_side', SCREEN);
  body.append('preview_seconds', PREVIEW);
  body.append('options', options);
  return json('POST', 'v1/jobs?reuse=true', {body, headers: {'Idempotency-Key': crypto.getRandomValues(new Uint32Array(4)).join('-')}});
};

// own: what is said beside the options, as {format: 'png'}; empty ones are not said.
export const again = (job, options, own) => json(
  'POST', `v1/jobs/${job}/again?${new URLSearchParams({reuse: true, ...Object.fromEntries(Object.entries(own).filter(([, value]) => value))})}`,
  {body: options, headers: {
    'Content-Type': 'application/json', 'Idempotency-Key': crypto.getRandomValues(new Uint32Array(4)).join('-'),
  }},
);

// News of all jobs, for ever. `onOpen` is called whenever the connection is there, `onLost` when it is not.
export async function follow({onOpen, onEvent, onLost}) {
  for (;;) {
    try {
      const answer = await ask('GET', 'v1/events');
      await onOpen();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const blocks = (text + part.value).split('\n\n');
        text = blocks.pop();
        for (const block of blocks) tell(block, onEvent);
      }
    } catch (error) {
      onLost(error);
    }
    await new Promise(done => setTimeout(done, AGAIN));
  }
}

function tell(block, onEvent) {
  const found = /^event: (\w+)\ndata: (.*)$/s.exec(block);
  if (found) onEvent(found[1], JSON.parse(found[2]));
}

// Pictures as addresses of memory: fetched once, the oldest let go.
const pictures = new Map();

export function picture(path, {fresh = false, kept = false} = {}) {
  const before = pictures.get(path);
  if (before && !fresh) return before;
  if (kept) return fetched(path);
  const found = fetched(path);
  found.catch(() => pictures.delete(path));
  pictures.delete(path);
  pictures.set(path, found);
  before?.then(release, () => {});
  for (const [oldest, address] of pictures) {
    if (pictures.size <= KEPT) break;
    pictures.delete(oldest);
    address.then(release, () => {});
  }
  return found;
}

const fetched = path => ask('GET', path).then(answer => answer.blob()).then(blob => URL.createObjectURL(blob));

// Not at once: it may still be on its way onto the screen, where it stays when it has arrived.
const release = address => setTimeout(() => URL.revokeObjectURL(address), 10_000);

// The address of the page with the key, for another device; `elsewhere` where this one's name is its own alone.
export function addressFor(elsewhere) {
  const here = base.hostname === 'localhost' || base.hostname === '[::1]' || base.hostname.startsWith('127.') ? elsewhere : base.href;
  return here && `${here}${key ? `#key=${key}` : ''}`;
}

export const code = text => ask('POST', 'v1/code', {body: JSON.stringify({text}), headers: {'Content-Type': 'application/json'}})
  .then(answer => answer.blob()).then(blob => URL.createObjectURL(blob));

// Several results, or one with a text beside it, as one zip.
export const downloadZip = (jobs, name, notice) => save(
  ask('POST', 'v1/results', {body: JSON.stringify({jobs, notice}), headers: {'Content-Type': 'application/json'}}), name);

export const download = (path, name) => save(ask('GET', path), name);

async function save(answer, name) {
  const address = URL.createObjectURL(await (await answer).blob());
  const link = document.createElement('a');
  Object.assign(link, {href: address, download: name});
  link.click();
  release(address);
}
