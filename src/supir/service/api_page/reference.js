// The interface as people read it: made of openapi.json, with nothing from elsewhere.

const $ = selector => document.querySelector(selector);
const METHODS = ['get', 'post', 'put', 'delete'];
let told;

function element(tag, {text = '', ...properties} = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(text, ...children);
  return made;
}

const resolved = schema => schema?.$ref
  ? schema.$ref.split('/').slice(1).reduce((where, name) => where[name], told) : schema ?? {};

// A schema's kind and range in a few words.
function kind(given) {
  const schema = resolved(given);
  if (schema.enum) return schema.enum.map(word => JSON.stringify(word)).join(' | ');
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const several = schema.anyOf ?? schema.oneOf;
  if (several) return several.map(kind).filter(Boolean).join(' or ');
  if (schema.type === 'array') return `list of ${kind(schema.items)}`;
  const range = schema.minimum !== undefined ? `, ${schema.minimum} to ${schema.maximum ?? '…'}` : '';
  return `${schema.format === 'binary' ? 'file' : schema.title && schema.type === 'object' ? schema.title : schema.type ?? ''}${range}`;
}

function row(name, schema, {required = false, description} = {}) {
  const about = description ?? schema.description ?? resolved(schema).description ?? '';
  return element('div', {},
    element('dt', {}, element('code', {text: name}), element('span', {className: 'dim', text: required ? ' needed' : ''})),
    element('dd', {}, element('span', {className: 'dim', text: kind(schema)}), about ? `: ${about}` : ''));
}

function fields(given) {
  const schema = resolved(given);
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => row(name, field, {required: schema.required?.includes(name)}));
  return rows.length ? [element('dl', {}, ...rows)] : [element('p', {className: 'dim', text: kind(schema)})];
}

function section(title, ...content) { return [element('h2', {text: title}), ...content]; }

function operation(path, method, what) {
  const parts = [];
  const rest = (what.description ?? '').trim();
  if (rest) parts.push(...rest.split('\n\n').map(text => element('p', {text})));
  if (what.parameters?.length)
    parts.push(...section('Parameters', element('dl', {}, ...what.parameters.map(each => row(`${each.name} (${each.in})`, each.schema, each)))));
  for (const [type, body] of Object.entries(what.requestBody?.content ?? {})) parts.push(...section(`Body: ${type}`, ...fields(body.schema)));
  const answers = Object.entries(what.responses ?? {}).map(([status, answer]) => {
    const [type, body] = Object.entries(answer.content ?? {})[0] ?? ['', null];
    const shape = resolved(body?.schema);
    return element('div', {}, element('dt', {}, element('code', {text: status})),
      element('dd', {text: answer.description ?? ''}, element('span', {className: 'dim', text: [type, shape.title].filter(Boolean).map(word => ` · ${word}`).join('')})));
  });
  parts.push(...section('Answers', element('dl', {}, ...answers)));
  const good = resolved(Object.entries(what.responses ?? {}).find(([status]) => status.startsWith('2'))?.[1].content?.['application/json']?.schema);
  if (good.properties) parts.push(...section(good.title ?? 'Answer', ...fields(good)));
  return element('details', {},
    element('summary', {}, element('span', {className: 'method', text: method.toUpperCase()}), element('span', {className: 'path', text: path}),
      element('span', {className: 'dim', text: (rest.split('\n\n')[0] ?? '').split(/(?<=[.:])\s/)[0]})), ...parts);
}

async function start() {
  told = await (await fetch(new URL('openapi.json', import.meta.url))).json();
  $('#version').textContent = told.info.version;
  $('#about').textContent = told.info.description;
  for (const [path, methods] of Object.entries(told.paths))
    for (const method of METHODS.filter(name => methods[name])) $('#routes').append(operation(path, method, methods[method]));
  $('#routes').setAttribute('aria-busy', 'false');
}

start();
