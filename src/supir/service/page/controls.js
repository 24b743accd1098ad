// What the toolbar, the keys, dropping and pasting do.

const SHIFT = 60;   // pixels that an arrow moves the picture by
const TYPED = 'input:not([type=radio], [type=checkbox]), textarea';

export function listen(stage, {onFiles, onAgainst, ...does}) {
  toolbar(stage, onAgainst, does);
  keys(stage, does);
  files(onFiles);
}

function toolbar(stage, onAgainst, {onInvented, onBrush}) {
  const hold = document.querySelector('#hold');
  const held = on => { stage.compare.hold(on); hold.setAttribute('aria-pressed', on); };
  hold.addEventListener('pointerdown', event => { hold.setPointerCapture(event.pointerId); held(true); });
  for (const end of ['pointerup', 'pointercancel', 'lostpointercapture', 'blur']) hold.addEventListener(end, () => held(false));
  for (const [kind, on] of [['keydown', true], ['keyup', false]]) {
    hold.addEventListener(kind, event => { if (event.key === ' ' || event.key === 'Enter') held(on); });
    document.addEventListener(kind, event => { if (letter(event) === 'b' && free(event)) held(on); });
  }
  hold.addEventListener('contextmenu', event => event.preventDefault());
  document.querySelector('#invented').addEventListener('click', onInvented);
  document.querySelector('#brush').addEventListener('click', onBrush);
  document.querySelector('#fit').addEventListener('click', () => stage.fit());
  document.querySelector('#actual').addEventListener('click', () => stage.toggle());
  document.querySelector('#against').addEventListener('change', event => onAgainst(event.target.value));
}

// A key's letter, on keyboards with other letters that of its place.
const letter = event => /^[ -~]$/.test(event.key) ? event.key : /^Key[A-Z]$/.test(event.code) ? event.code[3].toLowerCase() : event.key;

// Whether a key means the page, and not what is typed or chosen.
const free = event => !(event.ctrlKey || event.metaKey || event.altKey)
  && !event.target.closest?.(`${TYPED}, select, dialog[open]`) && !document.querySelector('dialog[open]');

function keys(stage, {onRestore, onStep, onRemove, onUndo, onInvented, onBrush, brush}) {
  const dialog = document.querySelector('#keys');
  document.querySelector('#keys-button').addEventListener('click', () => dialog.showModal());
  document.addEventListener('keydown', event => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); onRestore(); return; }
    const key = letter(event);
    if (key === 'z' && (event.ctrlKey || event.metaKey) && !event.target.closest?.(TYPED)) { event.preventDefault(); if (brush.on) brush.undo(); else onUndo(); return; }
    if (!free(event)) return;
    const along = {ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key];
    if (along && event.shiftKey) stage.pan(along[0] * SHIFT, along[1] * SHIFT);
    else if (along?.[0] && event.target.type !== 'radio') stage.compare.to(stage.compare.percent - 2 * along[0]);
    else if (key === 'i') onInvented();
    else if (key === 'p') onBrush();
    else if (brush.on && (key === '[' || key === ']')) brush.larger(key === ']' ? 1.25 : 0.8);
    else if (brush.on && key === 'e') brush.erase(!brush.erases);
    else if (brush.on && key === 'Escape') brush.take(false);
    else if (key === 'z') stage.toggle();
    else if (key === '0') stage.fit();
    else if (key === '+' || key === '=') stage.zoom(1.25);
    else if (key === '-') stage.zoom(0.8);
    else if (key === '?') dialog.showModal();
    else if (key === 'j') onStep(1);
    else if (key === 'k') onStep(-1);
    else if (key === '/') document.querySelector('#search').focus();
    else if (key === 'Delete') onRemove();
    else return;
    event.preventDefault();
  });
}

function files(onFiles) {
  const chooser = document.querySelector('#file'), drop = document.querySelector('#drop');
  chooser.addEventListener('change', () => { onFiles([...chooser.files]); chooser.value = ''; });
  const hasFiles = event => event.dataTransfer?.types.includes('Files');
  document.addEventListener('dragover', event => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    drop.hidden = false;
  });
  document.addEventListener('dragleave', event => { if (!event.relatedTarget) drop.hidden = true; });
  document.addEventListener('drop', event => {
    drop.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    onFiles([...event.dataTransfer.files]);
  });
  document.addEventListener('paste', event => {
    const pasted = [...event.clipboardData?.files ?? []];
    if (pasted.length) { event.preventDefault(); onFiles(pasted); }
  });
}
