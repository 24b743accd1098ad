"""A benchmark as one self-contained HTML page: the table, and pictures to flick between the methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from supir.evaluation.benchmark import PHOTOGRAPHS, TRUTH
from supir.evaluation.summary import Score, table_rows
from supir.files import write_whole
from supir.files.report import escaped, figure, html_page, html_table, jpeg_uri
from supir.image import read, to_pil
from supir.image.picture import Picture

SIDE = 384
"""Longest side in pixels of the part that is shown, from the middle."""
INPUT = "input"
"""The degraded picture, enlarged without smoothing."""

_STYLE = """
table { font-size: 13px } figcaption { max-width: 384px } figure img { display: none }
figure img.shown { display: block; cursor: pointer }
button { font: inherit; font-size: 12px } button.chosen { background: #2a7f62; color: white }
.bar { position: sticky; top: 0; background: white; padding: .4rem 0 }
"""
_SCRIPT = """
const methods = [...new Set([...document.querySelectorAll('figure img')].map(i => i.dataset.method))];
let chosen = methods[0];
function choose(name) {
  chosen = name;
  document.querySelectorAll('figure').forEach(f => f.querySelectorAll('img').forEach(
    i => i.classList.toggle('shown', i.dataset.method === name)));
  document.querySelectorAll('button').forEach(b => b.classList.toggle('chosen', b.textContent.endsWith(name)));
}
methods.forEach((name, k) => {
  const button = document.createElement('button');
  button.textContent = (k + 1) + ' ' + name;
  button.onclick = () => choose(name);
  document.querySelector('.bar').append(button, ' ');
});
const step = by => choose(methods[(methods.indexOf(chosen) + by + methods.length) % methods.length]);
document.addEventListener('keydown', e => {
  if (e.key >= '1' && e.key <= String(methods.length)) choose(methods[e.key - 1]);
  if (e.key === 'ArrowRight') step(1);
  if (e.key === 'ArrowLeft') step(-1);
});
document.querySelectorAll('figure').forEach(f => f.onclick = () => step(1));
choose(chosen);
"""


def write_page(folder: Path, scores: Sequence[Score], verdicts: Sequence[str], *, pictures: int = 6) -> Path:
    """Write ``report.html`` into a benchmark's folder; returns it. Of each recipe the first ``pictures`` are shown."""
    parts = [html_table(table_rows(scores)), *(f"<p>{escaped(sentence)}</p>" for sentence in verdicts)]
    parts.append("<div class='bar'>keys 1 2 3 ... or arrows, or a click on a picture: </div>")
    for recipe in dict.fromkeys(score.recipe for score in scores):
        chosen = [score for score in scores if score.recipe == recipe]
        names = list(dict.fromkeys(score.picture for score in chosen))[:pictures]
        methods = list(dict.fromkeys(score.method for score in chosen))
        figures = "".join(_figure(folder, recipe, name, methods) for name in names)
        parts.append(f"<h2>{escaped(recipe)}</h2><div class='pictures'>{figures}</div>")
    path = folder / "report.html"
    write_whole(path, html_page(folder.resolve().name, parts, style=_STYLE, script=_SCRIPT))
    return path


def _figure(folder: Path, recipe: str, name: str, methods: Sequence[str]) -> str:
    files = {method: folder / recipe / method / f"{name}.png" for method in methods if method != TRUTH}
    if recipe != PHOTOGRAPHS:
        files = {INPUT: folder / recipe / "lq" / f"{name}.png", **files, TRUTH: folder / recipe / "hq" / f"{name}.png"}
    shown = {method: read(path) for method, path in files.items() if path.is_file()}
    width, height = max((picture.width, picture.height) for picture in shown.values())
    images = [
        f"<img data-method='{escaped(method)}' alt='{escaped(method)}' src='{_uri(picture, width, height)}'>"
        for method, picture in shown.items()
    ]
    return figure("".join(images), [name])


def _uri(picture: Picture, width: int, height: int) -> str:
    """The middle of a picture, brought to the size of the others, as a data URI."""
    found = to_pil(picture)
    if found.size != (width, height):
        found = found.resize((width, height), Image.Resampling.NEAREST)
    left, top = max(0, (width - SIDE) // 2), max(0, (height - SIDE) // 2)
    part = left, top, min(width, left + SIDE), min(height, top + SIDE)
    return jpeg_uri(found.convert("RGB").crop(part), quality=88)
