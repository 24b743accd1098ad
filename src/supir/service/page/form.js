// The form, made of what the service says may be set: names, ranges and defaults are its own, none is written here.

const FIRST = ['prompt', 'negative_prompt', 'scale', 'seed'];   // the others stand under All options
const LABELS = {prompt: 'Caption', negative_prompt: 'Negative words'};

export class Form {
  // told: the answer of /v1/options
  constructor(root, told) {
    this.told = told;
    this.set = new Map();   // what the user has set, by name, as it goes into JSON
    this.inputs = new Map();
    this.presets(root.querySelector('#presets'));
    for (const name of Object.keys(told.options))
      root.querySelector(FIRST.includes(name) ? '#main' : '#rest > div').append(this.field(name));
    for (const name of [...FIRST].reverse()) root.querySelector('#main').prepend(this.inputs.get(name).closest('.field'));
    for (const format of told.formats) root.querySelector('#format').append(new Option(format.toUpperCase(), format));
    this.show();
  }

  presets(box) {
    for (const [name, about] of Object.entries(this.told.trade_offs)) {
      const label = element('label', {className: 'preset'});
      const radio = element('input', {type: 'radio', name: 'preset', value: name, checked: name === this.told.default_preset});
      radio.addEventListener('change', () => this.show());
      label.append(radio, element('strong', {textContent: name}), element('span', {textContent: about}));
      box.append(label);
    }
    this.presetBox = box;
  }

  get preset() { return this.presetBox.querySelector(':checked').value; }

  field(name) {
    const schema = this.told.options[name], kind = kindOf(schema);
    const box = element('div', {className: `field ${kind}`});
    box.dataset.name = name;
    const input = {choice: () => choiceInput(schema), text: () => element('textarea', {rows: name === 'prompt' ? 2 : 3}),
      flag: () => element('input', {type: 'checkbox'}), number: () => numberInput(schema)}[kind]();
    Object.assign(input, {id: `option-${name}`, name});
    input.setAttribute('aria-describedby', `about-${name}`);
    const label = element('label', {htmlFor: input.id, textContent: LABELS[name] ?? name.replaceAll('_', ' ')});
    const reset = element('button', {type: 'button', className: 'reset quiet', textContent: '↺', title: "Back to the preset's"});
    reset.setAttribute('aria-label', `${name.replaceAll('_', ' ')}: back to the preset's`);
    reset.addEventListener('click', () => { this.set.delete(name); this.show(); input.focus(); });
    input.addEventListener('input', () => this.take(name));
    input.addEventListener('change', () => { if (!input.validity.rangeOverflow && !input.validity.rangeUnderflow) this.show(); });
    const about = element('small', {id: `about-${name}`, textContent: schema.description});
    box.append(label, input, reset, about);
    if (name === 'seed') box.insertBefore(this.dice(input), reset);
    this.inputs.set(name, input);
    return box;
  }

  dice(input) {
    const dice = element('button', {type: 'button', className: 'dice', textContent: '⚄', title: 'Another seed'});
    dice.setAttribute('aria-label', 'Another seed');
    dice.addEventListener('click', () => {
      input.value = crypto.getRandomValues(new Uint32Array(1))[0];
      this.take('seed');
    });
    return dice;
  }

  // What the preset says of a field: nothing of the start of a ramp whose end somebody has set.
  ofPreset(name) {
    const left = Object.entries(this.told.goes_with).some(([owner, other]) => other === name && this.set.has(owner));
    return left ? null : this.told.presets[this.preset][name];
  }

  // What stands in a field that nobody has touched.
  given(name) { return this.ofPreset(name) ?? this.told.words[name] ?? null; }

  take(name) {
    const input = this.inputs.get(name), schema = this.told.options[name];
    const value = valueOf(input, schema, this.given(name));
    if (value === undefined) this.set.delete(name); else this.set.set(name, value);
    this.mark(name);
  }

  mark(name) { this.inputs.get(name).closest('.field').classList.toggle('changed', this.set.has(name)); }

  show() {
    for (const [name, input] of this.inputs) {
      const value = this.set.has(name) ? this.set.get(name) : this.given(name);
      if (input.type === 'checkbox') input.checked = value === true || value === 'true';
      else input.value = value === null || value === 'off' ? '' : value;
      this.mark(name);
    }
  }

  // Take over what a job was made with: under its preset's name nothing is known, so all of it is set.
  fill(options) {
    this.set.clear();
    for (const [name, value] of Object.entries(options)) {
      if (!this.inputs.has(name) || String(value) === String(this.ofPreset(name))) continue;
      const text = kindOf(this.told.options[name]) === 'text';
      if (value !== null) this.set.set(name, value);
      else if (!text) this.set.set(name, 'off');
    }
    this.show();
  }

  // A captioner's words, unless somebody has typed.
  caption(text) {
    if (this.set.has('prompt') && this.set.get('prompt') !== this.described) return;
    this.described = text;
    if (text) this.set.set('prompt', text); else this.set.delete('prompt');
    this.show();
  }

  get seed() { return BigInt(this.inputs.get('seed').value || '0'); }

  // One JSON object; numbers stand in it as they were typed, so that none is rounded.
  json(changes = {}) {
    const all = {...Object.fromEntries(this.set), ...changes};
    const parts = Object.entries(all).map(([name, value]) => {
      const number = kindOf(this.told.options[name]) === 'number' && value !== 'off';
      return `${JSON.stringify(name)}:${number ? jsonNumber(String(value)) : JSON.stringify(value)}`;
    });
    return `{${[`"preset":${JSON.stringify(this.preset)}`, ...parts].join(',')}}`;
  }
}

function kindOf(schema) {
  if (schema.enum) return 'choice';
  if (schema.anyOf || schema.minimum !== undefined) return 'number';
  return schema.type === 'boolean' ? 'flag' : 'text';
}

function choiceInput(schema) {
  const input = element('select');
  input.append(...schema.enum.map(word => new Option(word, word)));
  return input;
}

function numberInput(schema) {
  const optional = Boolean(schema.anyOf), {minimum, maximum, type} = optional ? schema.anyOf[0] : schema;
  return element('input', {
    type: 'number', min: minimum, max: maximum, step: type === 'integer' ? 1 : 'any',
    placeholder: optional ? 'unset' : '', inputMode: type === 'integer' ? 'numeric' : 'decimal',
  });
}

// What a field says, or undefined where that is what the preset says. An empty number is unset, if it may be.
function valueOf(input, schema, given) {
  const kind = kindOf(schema);
  if (kind === 'flag') return input.checked === Boolean(given) ? undefined : input.checked;
  if (kind === 'number' && input.value === '') return given === null || !schema.anyOf ? undefined : 'off';
  if (kind === 'number') return given !== null && Number(input.value) === Number(given) ? undefined : input.value;
  return input.value === (given ?? '') ? undefined : input.value;
}

const jsonNumber = text => /^-?\d+$/.test(text) ? BigInt(text).toString() : String(Number(text));

export function element(tag, properties = {}) { return Object.assign(document.createElement(tag), properties); }
