"""A benchmark on disk: degraded, restored by every method, scored; gone on with after an interruption.

    OUT/sr4/hq lq degradations.jsonl      the pairs (see ``supir.degradation.pairs``); of real pictures lq alone
    OUT/sr4/quality/NAME.png              what a method made of them
    OUT/sr4/quality/scores.jsonl          one line a picture: what made it, from what, and its measures

A result is taken for what it is called only while its line says so: the same degraded picture, the same identity of the
method (weights, options), the same size and pixels. Anything else is made again. Scores are those of the 8-bit file.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from supir import __version__
from supir.degradation.pairs import make_pairs, pixels_sha256
from supir.errors import ImageError
from supir.evaluation.methods import Method
from supir.evaluation.metrics import Measure
from supir.evaluation.summary import Score, measured
from supir.files import add_entries, check_apart, read_entries, write_entries
from supir.files.report import markdown_table
from supir.image import Picture, by_name, read, write

SCORES = "scores.jsonl"
TRUTH = "truth"
"""The method that is none: the original, scored by what needs no reference."""
PHOTOGRAPHS = "photographs"
"""In place of a recipe: real pictures, which have no original."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A degraded picture and, where there is one, its original."""

    recipe: str
    name: str
    low: Path
    original: Path | None
    size: tuple[int, int]
    """Height and width of the results."""


def run_benchmark(
    pictures: Sequence[Path],
    out: Path,
    methods: Sequence[Method],
    measures: Mapping[str, Measure],
    *,
    recipes: Sequence[str],
    seed: int = 0,
    side: int | None = None,
    scale: float = 2.0,
) -> Iterator[Score | str]:
    """Make and score what is missing, recipe by recipe; yields every score, known or new, and what went wrong.

    Args:
        pictures: good ones; for ``PHOTOGRAPHS`` real ones, as they are.
        recipes: of the degradations, drawn by ``seed``; or ``PHOTOGRAPHS``.
        side: longest side kept of a good picture.
        scale: of the results of real pictures.

    Raises:
        OptionError: two pictures of one name, one that would be overwritten, or a folder of pairs made otherwise.
    """
    for recipe in recipes:
        folder = out / recipe
        check_apart([(path, folder / method.name / f"{path.stem}.png") for method in methods for path in pictures])
        cases = _real_cases(pictures, scale) if recipe == PHOTOGRAPHS else _cases(pictures, folder, recipe, seed, side)
        whole = []
        for case in cases:
            if isinstance(case, str):
                yield case
                continue
            whole.append(case)
        if recipe != PHOTOGRAPHS:
            yield from _scored(whole, folder / TRUTH, None, measures)
        for method in methods:
            yield from _scored(whole, folder / method.name, method, measures)


def _cases(pictures: Sequence[Path], folder: Path, recipe: str, seed: int, side: int | None) -> Iterator[Case | str]:
    for made in make_pairs(pictures, folder, recipe, seed=seed, side=side):
        if made.pair is None:
            yield str(made.error)
            continue
        low, original = (folder / kind / f"{made.pair.name}.png" for kind in ("lq", "hq"))
        yield Case(recipe=recipe, name=made.pair.name, low=low, original=original, size=made.pair.size)


def _real_cases(pictures: Sequence[Path], scale: float) -> Iterator[Case | str]:
    for name, path in by_name(pictures).items():
        try:
            found = read(path)
        except ImageError as error:
            yield str(error)
            continue
        size = round(found.height * scale), round(found.width * scale)
        yield Case(recipe=PHOTOGRAPHS, name=name, low=path, original=None, size=size)


def _scored(
    cases: Sequence[Case], folder: Path, method: Method | None, measures: Mapping[str, Measure]
) -> Iterator[Score]:
    """The scores of one method over the cases of one recipe."""
    identity = _hash(dict(method.identity) if method else {"method": TRUTH})
    known = {line["name"]: line for line in read_entries(folder / SCORES)}  # the last line of each
    write_entries(folder / SCORES, known.values())
    fresh: dict[str, dict[str, Any]] = {}
    for case in cases:
        line = known.get(case.name)
        if line is None or not _holds(line, case, folder, identity, measures):
            line = _made(case, folder, method, identity, measures)
            add_entries(folder / SCORES, line)
        fresh[case.name] = line
        values = {name: math.inf if value is None else value for name, value in line["values"].items()}
        wanted = {name: values[name] for name in measures if name in values}
        yield Score(recipe=case.recipe, picture=case.name, method=folder.name, values=wanted, seconds=line["seconds"])
    write_entries(folder / SCORES, {**known, **fresh}.values())


def _made(
    case: Case, folder: Path, method: Method | None, identity: str, measures: Mapping[str, Measure]
) -> dict[str, Any]:
    """Restore and measure a picture; a line of ``SCORES``."""
    low = read(case.low).rgb.contiguous()
    original = None if case.original is None else read(case.original).rgb
    seconds = None
    path = folder / f"{case.name}.png"
    if method is None:
        assert original is not None
        result = original
    else:
        begun = time.perf_counter()
        found = method(low, *case.size)
        seconds = round(time.perf_counter() - begun, 3)
        write(Picture(pixels=found), path)
        result = read(path).rgb  # as stored: what is scored is what is shown
    values = measured(result, original if method else None, measures, [])
    return {
        "name": case.name,
        "identity": identity,
        "low_sha256": pixels_sha256(low),
        "sha256": pixels_sha256(result),
        "seconds": seconds,
        "measures": list(measures),
        "values": {name: round(value, 6) if math.isfinite(value) else None for name, value in values.items()},
    }


def _holds(line: Mapping[str, Any], case: Case, folder: Path, identity: str, measures: Mapping[str, Measure]) -> bool:
    """Whether a stored line still is about this picture, this method, and the file beside it."""
    if line["identity"] != identity or not set(measures) <= set(line["measures"]):
        return False
    path = case.original if folder.name == TRUTH else folder / f"{case.name}.png"
    if path is None or not path.exists():
        return False
    try:
        low, result = read(case.low).rgb, read(path).rgb
        return (
            result.shape[1:] == case.size
            and line["low_sha256"] == pixels_sha256(low)
            and line["sha256"] == pixels_sha256(result)
        )
    except ImageError:
        return False


def _hash(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def machine() -> dict[str, Any]:
    """Version, commit where the source is a checkout, and the machine."""
    return {
        "supir": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else None,
    }


def _commit() -> str | None:
    """Of the checkout that this file lies in, with a plus where it was changed; None where it is installed."""
    here = Path(__file__).parent
    try:
        shown = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return shown.stdout.strip() or None


def paper_table1(recipes: Sequence[str]) -> str:
    """Table 1 of arXiv 2401.13627 for these recipes, as markdown; empty where it has none of them."""
    with Path(__file__).with_name("paper_table1.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    chosen = [row for row in rows if row[0] in recipes]
    return markdown_table([head, *chosen]) if chosen else ""
