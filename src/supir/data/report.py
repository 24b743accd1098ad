"""What a data set looks like: one HTML file, with counts, histograms and thumbnails, that needs no other file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from supir.data.photos import Photos
from supir.data.pixels import Pixels, load
from supir.errors import ImageError, OptionError
from supir.files import write_whole
from supir.files.report import escaped, figure, html_page, html_table, jpeg_uri

FACTS = "build.json"
"""Options, counts and licences of a finished data set."""
PICTURES = "pictures.jsonl"
"""One line for each photograph that was found, kept or not."""
REPORT = "report.html"
THUMBNAILS = 48
"""Samples shown, spread evenly, and as many rejected pictures at most."""
THUMBNAIL_SIDE = 160
"""Pixels."""

_BINS = 32
_MAX_REJECTED_PIXELS = 60_000_000  # of a rejected picture that is read once more for its thumbnail
_STYLE = """
figure { width: 160px; overflow-wrap: anywhere } figure img { max-width: 160px } .plot figure { width: auto }
.plots { display: flex; flex-wrap: wrap; gap: 1.2rem } .small { color: #666; font-size: 12px }
.kept { fill: #2a7f62 } .rejected { fill: #d98c5f }
"""


def write_report(folder: Path | str) -> Path:
    """Writes ``report.html`` into a built data set, from what lies there; rejected photographs are read once more.

    Raises:
        OptionError: the folder is not a finished data set.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / FACTS).read_bytes())
        pictures = [json.loads(line) for line in (folder / PICTURES).read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise OptionError(f"{folder}: no finished data set: {error}") from error
    parts = [
        _overview(facts),
        "<h2>Reasons for rejection</h2>" + _table(facts["reasons"], "none was rejected"),
        "<h2>Licences of what was kept</h2>" + _table(facts["licences"], "nothing was kept"),
        "<h2>Captions</h2>" + _captions(pictures),
        "<h2>Measures</h2>" + _plots(pictures),
        "<h2>Samples</h2>" + "".join(_samples(folder)),
        "<h2>Rejected</h2>" + "".join(_rejected([row for row in pictures if not row["kept"]])),
    ]
    write_whole(folder / REPORT, html_page(folder.resolve().name, parts, style=_STYLE))
    return folder / REPORT


def _overview(facts: dict[str, Any]) -> str:
    options = {**facts["options"], **facts["options"]["rules"], "captioner": facts["captioner"]}
    del options["rules"]
    counts = (
        f"<p>{facts['num_pictures']} pictures found, {facts['num_kept']} kept as {facts['num_samples']} samples in"
        f" {facts['num_shards']} shards of {facts['num_bytes'] / 1e6:.1f} MB together."
    )
    if facts["num_tiles_left_out"]:
        counts += f" {facts['num_tiles_left_out']} tiles were too flat or not sharp enough."
    chosen = ", ".join(f"{name} {value}" for name, value in options.items() if value not in (None, False))
    return f"{counts}</p><p class='small'>Built with: {escaped(chosen)}</p>"


def _table(counts: dict[str, int], empty: str) -> str:
    if not counts:
        return f"<p>{empty}</p>"
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return html_table(ordered, heading=False)


def _captions(pictures: Sequence[dict[str, Any]]) -> str:
    kept = [row["provenance"] for row in pictures if row["kept"]]
    lengths = [len(said["caption"].split()) for said in kept if said["caption"]]
    negative = sum(said["negative"] for said in kept)
    mean = f", of {np.mean(lengths):.1f} words on average" if lengths else ""
    refused = [said["refused"] for said in kept if said.get("refused")]
    told = "".join(f"<br>not taken: {escaped(reason)}" for reason in refused[:THUMBNAILS])
    return (
        f"<p>{len(lengths)} of {len(kept)} kept pictures came with a caption{mean}; {negative} are examples of bad"
        f" quality. The words beside {len(refused)} could not be read.{told}</p>"
    )


def _plots(pictures: Sequence[dict[str, Any]]) -> str:
    read = [row for row in pictures if not row["error"]]
    measures = [
        ("shorter side, pixels", [min(row["width"], row["height"]) for row in read], True),
        ("sharpness (variance of the Laplacian)", [row["sharpness"] for row in read], True),
        ("flat share", [row["flat_share"] for row in read], False),
        ("blockiness", [row["blockiness"] for row in read], True),
        ("JPEG quality", [row["jpeg_quality"] for row in read], False),
    ]
    kept = [row["kept"] for row in read]
    plots = "".join(_histogram(title, values, kept, logarithmic) for title, values, logarithmic in measures)
    return f"<p class='small'>Kept in green, rejected in orange.</p><div class='plots'>{plots}</div>"


def _histogram(title: str, values: Sequence[float | None], kept: Sequence[bool], logarithmic: bool) -> str:
    """An SVG of stacked bars over a linear or logarithmic axis."""
    known = [(value, good) for value, good in zip(values, kept, strict=True) if value is not None]
    if not known:
        return ""
    numbers = np.array([value for value, _ in known], float)
    good = np.array([flag for _, flag in known])
    scaled = np.log10(np.maximum(numbers, 1e-3)) if logarithmic else numbers
    low, high = float(scaled.min()), float(scaled.max())
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    below, above = (np.histogram(scaled[chosen], edges)[0] for chosen in (good, ~good))
    tallest = max(1, int((below + above).max()))
    bars = []
    for place, (green, orange) in enumerate(zip(below, above, strict=True)):
        for count, under, name in ((green, 0, "kept"), (orange, green, "rejected")):
            if count:
                height, bottom = 110 * count / tallest, 110 * (under + count) / tallest
                bars.append(f"<rect class='{name}' x='{place * 10}' y='{115 - bottom:.1f}' width='9'"
                            f" height='{height:.1f}'/>")  # fmt: skip
    ends = [f"{10**end if logarithmic else end:.4g}" for end in (low, float(edges[-1]))]
    axis = f"<text x='0' y='130' font-size='11'>{ends[0]}</text>"
    axis += f"<text x='{_BINS * 10}' y='130' font-size='11' text-anchor='end'>{ends[1]}</text>"
    picture = f"<svg width='{_BINS * 10}' height='135' role='img'>{''.join(bars)}{axis}</svg>"
    return f"<div class='plot'>{figure(picture, [title])}</div>"


def _samples(folder: Path) -> Iterator[str]:
    try:
        photos = Photos(folder)
    except OptionError:
        yield "<p>none</p>"
        return
    yield "<div class='pictures'>"
    for number in _spread(len(photos), THUMBNAILS):
        try:
            sample = photos.sample(number)
        except ImageError as error:
            yield _figure(None, [str(error)])
            continue
        height, width = sample.pixels.shape[:2]
        marks = ["negative"] if sample.negative else []
        yield _figure(sample.pixels, [sample.caption or "(no caption)", f"{width} x {height}", sample.source, *marks])
    yield "</div>"


def _rejected(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield f"<p>{len(rows)} in all; each with its reason stands in pictures.jsonl.</p><div class='pictures'>"
    for number in _spread(len(rows), THUMBNAILS):
        row = rows[number]
        pixels = None
        if not row["error"] and row["width"] * row["height"] <= _MAX_REJECTED_PIXELS:
            try:
                path = row["source"]
                pixels = load(path, Path(path).read_bytes(), _MAX_REJECTED_PIXELS).pixels
            except (ImageError, OSError):
                pixels = None  # it was moved since: its reason is still true
        yield _figure(pixels, ["; ".join(row["reasons"]), row["source"]])
    yield "</div>"


def _figure(pixels: Pixels | None, lines: Iterable[str]) -> str:
    picture = ""
    if pixels is not None:
        image = Image.fromarray(pixels)
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
        picture = f"<img alt='' src='{jpeg_uri(image, quality=75)}'>"
    return figure(picture, lines)


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` numbers, evenly."""
    step = max(1.0, count / most)
    return [math.floor(place * step) for place in range(min(count, most))]
