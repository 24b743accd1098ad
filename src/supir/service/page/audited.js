// What the audit of a result came to, in words: the legend of its layer, and the report's sentence.

import {element} from './element.js';
import {number, put, spoken, t} from './text.js';

const KINDS = ['kept', 'reconstructed', 'invented'];

// The block of a pane; the report, which has more than the job, is fetched for it once. It takes its place too where
// only another pane has something to say, so that all panes have one size.
export async function sayAudit(block, job, pictures, {shown}) {
  const said = job.audit ? `${job.id} ${spoken()}` : '';
  block.hidden = !shown;
  if (block.dataset.said === said) return;
  block.dataset.said = said;
  block.replaceChildren();
  if (!said) return;
  block.append(legend(job.audit), ...passed(job.audit));
  const report = await pictures.report(job).catch(() => null);
  if (report && block.dataset.said === said) block.append(sentence(report));
}

function legend(audit) {
  const line = element('p', {className: 'legend'});
  line.append(...KINDS.map(kind => put(element('span', {className: kind}), `audit.${kind}`, {share: share(audit[kind])})));
  return line;
}

// Past a limit: which, and what is returned then in place of what was restored.
function passed(audit) {
  if (!audit.past_limits.length) return [];
  const line = element('p', {className: 'passed'});
  line.append(put(element('strong'), 'audit.passed'), ' ', original(audit.past_limits.join('; ')));
  if (audit.returned) line.append('. ', put(element('span'), `audit.returned.${audit.returned}`));
  return [line];
}

function sentence({contradictions, letters, faces, guarantee}) {
  const line = element('p', {className: 'said'}), parts = [t('audit.contradictions', {count: contradictions.length}), counted('letters', letters), counted('faces', faces)];
  if (contradictions.length) line.append(element('span', {className: 'outlined', ariaHidden: true}));
  line.append(parts.filter(Boolean).join('; '));
  if (guarantee !== 'holds') line.append('; ', t('audit.unsure'), ' ', original(`(${guarantee})`));
  return line;
}

// How many of the lines of text, or of the faces, have each verdict.
function counted(what, all) {
  if (!all) return t(`audit.${what}.unlooked`);
  if (!all.length) return t(`audit.${what}.none`);
  const counts = new Map();
  for (const {verdict} of all) counts.set(verdict, (counts.get(verdict) ?? 0) + 1);
  const found = [...counts].sort().map(([verdict, count]) => t(`audit.${what}.${verdict}`, {count: number(count)}));
  return t(`audit.${what}`, {counts: found.join(', ')});
}

const share = part => `${number(100 * part, part && part < 0.01 ? {maximumSignificantDigits: 2} : {maximumFractionDigits: 0})} %`;
const original = text => element('span', {textContent: text, translate: false, lang: 'en'});
