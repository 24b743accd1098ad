// The form, made of what the service says may be set: names, ranges and defaults are its own; how options are grouped,
// and what photographers call them, is the page's.

import {element} from './element.js';
import {presetCards} from './presets.js';
import {ScaleField} from './scale.js';
import {has, put} from './text.js';
import {optionName} from './words.js';

const GROUPS = {   // by place; what stands in none is for experts
  main: ['scale', 'prompt', 'audit'],
  look: ['detail', 'seed', 'text_guidance', 'control_scale', 'restoration_guidance', 'num_steps', 'color_fix', 'color_strength', 'blend', 'see_larger', 'keep_grain', 'lora'],
  words: ['negative_prompt', 'positive_prompt', 'tile_prompts', 'prompt_weights'],
  large: ['min_size', 'tile', 'tile_overlap', 'tile_batch', 'vae_tile', 'decoder_tile', 'memory'],
  files: ['always', 'salvage', 'marking'],
};

export class Form {
  // root: the form's element; told: the answer of /v1/options; onChange: anything is set otherwise
  constructor(root, told, onChange = () => {}) {
    this.root = root;
    this.told = told;
    this.onChange = onChange;
    this.set = new Map();      // what the user has set, by name, as it goes into JSON
    this.advised = new Map();  // what stands for the preset's value while a photo is open
    this.inputs = new Map();
    this.schemas = {...told.options, ...told.audit_options};
    presetCards(root, told, () => { this.show(); onChange(); });
    this.scale = new ScaleField(told, () => this.inputs.get('scale'));
    const rest = root.querySelector('#rest > div'), expert = root.querySelector('#expert > div');
    const groups = {...GROUPS, audit: Object.keys(told.audit_options).filter(name => name !== 'audit')};
    const grouped = Object.values(groups).flat();
    for (const [group, names] of Object.entries(groups)) {
      const box = group === 'main' ? root.querySelector('#main') : this.group(group);
      if (group !== 'main') rest.append(box);
      for (const name of names) if (name in this.schemas) box.append(this.field(name));
      if (group === 'files') box.append(this.formats());
    }
    for (const name of Object.keys(this.schemas)) if (!grouped.includes(name)) expert.append(this.field(name));
    this.show();
  }

  group(name) {
    const box = element('fieldset', {className: 'group', name: `group-${name}`});
    box.append(put(element('legend'), `group.${name}`));
    return box;
  }

  formats() {
    const box = element('div', {className: 'field'});
    const select = element('select', {id: 'format'});
    select.append(put(new Option('', ''), 'format.same'), ...this.told.formats.map(each => Object.assign(new Option(each.toUpperCase(), each), {translate: false})));
    box.append(put(element('label', {htmlFor: 'format'}), 'format'), select);
    return box;
  }

  get preset() { return this.root.querySelector('[name=preset]:checked').value; }
  get format() { return this.root.querySelector('#format').value; }

  field(name) {
    const schema = this.schemas[name], kind = kindOf(schema), unused = this.told.unused[name];
    const box = element('div', {className: `field ${kind}`});
    box.dataset.name = name;
    const input = {choice: () => choiceInput(schema), text: () => element('textarea', {rows: name === 'prompt' ? 2 : 3}),
      flag: () => element('input', {type: 'checkbox'}), number: () => numberInput(schema)}[kind]();
    Object.assign(input, {id: `option-${name}`, name});
    input.setAttribute('aria-describedby', `about-${name}`);
    const label = element('label', {htmlFor: input.id});
    if (has(`option.${name}`)) put(label, `option.${name}`); else label.textContent = optionName(name);
    put(label, 'option.term', {name, about: schema.description}, 'title');
    const reset = element('button', {type: 'button', className: 'reset quiet', textContent: '↺'});
    for (const place of ['title', 'label']) put(reset, 'option.reset', {name: optionName(name)}, place);
    reset.addEventListener('click', () => { this.set.delete(name); this.show(); this.onChange(); input.focus(); });
    input.addEventListener('input', () => this.take(name));
    input.addEventListener('change', () => { if (!input.validity.rangeOverflow && !input.validity.rangeUnderflow) this.show(); });
    const about = element('small', {id: `about-${name}`});
    if (unused !== undefined) {
      box.classList.add('unused');
      input.disabled = true;
      about.append(put(element('span'), 'option.unused'), ' ', element('span', {textContent: `(${unused})`, translate: false, lang: 'en'}));
    } else if (has(`option.${name}.help`)) put(about, `option.${name}.help`); else about.textContent = schema.description;
    if (name === 'lora' && unused === undefined) about.append(element('span', {textContent: `: ${this.told.loras.join(', ')}`, translate: false}));
    box.append(label, name === 'scale' ? this.scale.around(input) : input, reset, about);
    if (name === 'seed') box.insertBefore(this.dice(input), reset);
    this.inputs.set(name, input);
    return box;
  }

  dice(input) {
    const dice = element('button', {type: 'button', className: 'dice', textContent: '⚄'});
    for (const place of ['title', 'label']) put(dice, 'seed.another', {}, place);
    dice.addEventListener('click', () => {
      input.value = crypto.getRandomValues(new Uint32Array(1))[0];
      this.take('seed');
    });
    return dice;
  }

  // What the preset says of a field: nothing of the start of a ramp whose end somebody has set.
  ofPreset(name) {
    const left = Object.entries(this.told.goes_with).some(([owner, other]) => other === name && this.set.has(owner));
    return left ? null : {...this.told.audit_defaults, ...this.told.presets[this.preset]}[name];
  }

  // What stands in a field that nobody has touched.
  given(name) { return this.advised.get(name) ?? this.ofPreset(name) ?? this.told.words[name] ?? null; }

  value(name) { return this.set.has(name) ? this.set.get(name) : this.given(name); }

  take(name) {
    const input = this.inputs.get(name), schema = this.schemas[name];
    const value = valueOf(input, schema, this.given(name));
    if (value === undefined) this.set.delete(name); else this.set.set(name, value);
    this.mark(name);
    if (name === 'scale') this.scale.show();
    if (name === 'audit') this.showAudit();
    this.onChange(name);
  }

  // The options of an audit say nothing without one.
  showAudit() { this.root.querySelector('[name=group-audit]').disabled = this.value('audit') !== true; }

  mark(name) { this.inputs.get(name).closest('.field').classList.toggle('changed', this.set.has(name)); }

  show() {
    for (const [name, input] of this.inputs) {
      const value = this.value(name);
      if (input.type === 'checkbox') input.checked = value === true || value === 'true';
      else input.value = value === null || value === 'off' ? '' : value;
      this.mark(name);
    }
    this.scale.show();
    this.showAudit();
  }

  // Set, or take back where the value is undefined, without having been typed.
  put(name, value) {
    if (value === undefined) this.set.delete(name); else this.set.set(name, value);
    this.show();
    this.onChange(name);
  }

  advise(name, value) {
    if (this.advised.get(name) === value) return;
    if (value === undefined) this.advised.delete(name); else this.advised.set(name, value);
    this.show();
  }

  // Take over what a job was made with. Of one that tells no preset all is set.
  fill(job) {
    if (job.preset in this.told.presets) this.root.querySelector(`[name=preset][value=${job.preset}]`).checked = true;
    this.set.clear();
    for (const [name, value] of Object.entries({...job.options, audit: Boolean(job.audit_options), ...job.audit_options})) {
      if (!this.inputs.has(name) || String(value) === String(this.ofPreset(name))) continue;
      const text = kindOf(this.schemas[name]) === 'text';
      if (value !== null) this.set.set(name, value);
      else if (!text) this.set.set(name, 'off');
    }
    this.show();
    this.onChange();
  }

  get seed() { return BigInt(this.inputs.get('seed').value || '0'); }

  // One JSON object; numbers stand in it as they were typed, so that none is rounded. Undefined changes take nothing back.
  json(changes = {}) {
    const all = {...Object.fromEntries(this.set), ...Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined))};
    const asked = Object.entries(all).filter(([name]) => all.audit === true || !(name in this.told.audit_options));
    const parts = asked.map(([name, value]) => {
      const number = kindOf(this.schemas[name]) === 'number' && value !== 'off';
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
  const input = element('select', {translate: false});
  input.append(...schema.enum.map(word => new Option(word, word)));
  return input;
}

function numberInput(schema) {
  const optional = Boolean(schema.anyOf), {minimum, maximum, type} = optional ? schema.anyOf[0] : schema;
  const input = element('input', {type: 'number', min: minimum, max: maximum, step: type === 'integer' ? 1 : 'any',
    inputMode: type === 'integer' ? 'numeric' : 'decimal'});
  return optional ? put(input, 'unset', {}, 'placeholder') : input;
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
