// Every text of the page: a catalogue of messages for each language, and the switch between them.

const LANGUAGES = {en: 'English', ko: '한국어'};
const PLACES = {text: null, title: 'title', label: 'aria-label', placeholder: 'placeholder', alt: 'alt'};
const KEPT = 'supir-language';
const values = new WeakMap();   // of elements with texts that hold values: the values, by place

let messages = {}, language = 'en', plural = new Intl.PluralRules('en');

// A message; of one that has forms for numbers, that for `count`.
export function t(key, given = {}) {
  const found = messages[key] ?? key;
  const text = typeof found === 'string' ? found : found[plural.select(given.count)] ?? found.other;
  return text.replace(/\{(\w+)\}/g, (whole, name) => given[name] ?? whole);
}

export const has = key => key in messages;
export const spoken = () => language;
export const number = (value, options) => new Intl.NumberFormat(language, options).format(value);
export const date = (value, options) => new Intl.DateTimeFormat(language, options).format(value);

// Put a message into an element, as its text or an attribute, where it is told anew when the language changes.
export function put(element, key, given = {}, place = 'text') {
  element.dataset[place] = key;
  values.set(element, {...values.get(element), [place]: given});
  tell(element, place);
  return element;
}

// Take what stands there away.
export function unput(element, place = 'text') {
  if (element.dataset[place] === undefined) return;
  delete element.dataset[place];
  if (PLACES[place]) element.removeAttribute(PLACES[place]); else element.textContent = '';
}

function tell(element, place) {
  const text = t(element.dataset[place], values.get(element)?.[place]);
  if (!PLACES[place]) { if (element.textContent !== text) element.textContent = text; }
  else if (element.getAttribute(PLACES[place]) !== text) element.setAttribute(PLACES[place], text);
}

// All that stands below a node.
export function tellAll(root) {
  for (const place of Object.keys(PLACES))
    for (const element of root.querySelectorAll(`[data-${place}]`)) tell(element, place);
}

function preferred() {
  let kept = null;
  try { kept = localStorage.getItem(KEPT); } catch { /* storage is denied */ }
  const wanted = [kept, ...navigator.languages.map(each => each.split('-')[0])];
  return wanted.find(each => each in LANGUAGES) ?? 'en';
}

async function speak(which) {
  messages = await (await fetch(new URL(`words.${which}.json`, import.meta.url))).json();
  language = which;
  plural = new Intl.PluralRules(which);
  document.documentElement.lang = which;
  tellAll(document);
  for (const template of document.querySelectorAll('template')) tellAll(template.content);
}

// Speak the language that was chosen here before, or the browser's; `onChange` is called after another was chosen.
export async function startSpeaking(select, onChange) {
  select.append(...Object.entries(LANGUAGES).map(([code, name]) => Object.assign(new Option(name, code), {lang: code})));
  await speak(preferred());
  select.value = language;
  select.addEventListener('change', async () => {
    try { localStorage.setItem(KEPT, select.value); } catch { /* storage is denied, or full */ }
    await speak(select.value);
    onChange();
  });
}
