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
from supir.image import Picture, by_name, read, read_size, write

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
    batch: int = 1,
) -> Iterator[Score | str]:
    """Make and score what is missing, recipe by recipe; yields every score, known or new, and what went wrong.

    Args:
        pictures: good ones; for ``PHOTOGRAPHS`` real ones, as they are.
        recipes: of the degradations, drawn by ``seed``; or ``PHOTOGRAPHS``.
        side: longest side kept of a good picture.
        scale: of the results of real pictures.
        batch: pictures of one size that a method is given at a time.

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
            yield from _scored(whole, folder / method.name, method, measures, batch)


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
    cases: Sequence[Case], folder: Path, method: Method | None, measures: Mapping[str, Measure], batch: int = 1
) -> Iterator[Score]:
    """The scores of one method over the cases of one recipe: first of those that are known, then of the others."""
    identity = _hash(dict(method.identity) if method else {"method": TRUTH})
    known = {line["name"]: line for line in read_entries(folder / SCORES)}  # the last line of each
    write_entries(folder / SCORES, known.values())
    fresh = {
        case.name: known[case.name]
        for case in cases
        if case.name in known and _holds(known[case.name], case, folder, identity, measures)
    }

    def score(case: Case, line: Mapping[str, Any]) -> Score:
        values = {name: math.inf if value is None else value for name, value in line["values"].items()}
        wanted = {name: values[name] for name in measures if name in values}
        return Score(recipe=case.recipe, picture=case.name, method=folder.name, values=wanted, seconds=line["seconds"])

    yield from (score(case, fresh[case.name]) for case in cases if case.name in fresh)
    for together in _of_one_size([case for case in cases if case.name not in fresh], batch):
        if method is not None:
            seconds = _restore(together, folder, method)
        for case in together:
            line = _measured(case, folder, None if method is None else seconds, measures) | {"identity": identity}
            add_entries(folder / SCORES, line)
            fresh[case.name] = line
            yield score(case, line)
    write_entries(folder / SCORES, {**known, **fresh}.values())


def _of_one_size(cases: Sequence[Case], batch: int) -> Iterator[list[Case]]:
    """So many at a time, in their order, whose degraded pictures and results have the same sizes."""
    waiting: dict[Any, list[Case]] = {}
    for case in cases:
        together = waiting.setdefault((case.size, read_size(case.low)), [])
        together.append(case)
        if len(together) == batch:
            yield together[:]
            together.clear()
    yield from filter(None, waiting.values())


def _restore(cases: Sequence[Case], folder: Path, method: Method) -> float:
    """Write what a method makes of pictures of one size; the seconds of each."""
    low = torch.stack([read(case.low).rgb for case in cases])
    begun = time.perf_counter()
    found = method(low, *cases[0].size)
    seconds = (time.perf_counter() - begun) / len(cases)
    for case, pixels in zip(cases, found, strict=True):
        write(Picture(pixels=pixels), folder / f"{case.name}.png")
    return round(seconds, 3)


def _measured(case: Case, folder: Path, seconds: float | None, measures: Mapping[str, Measure]) -> dict[str, Any]:
    """A line of ``SCORES``, but for the identity: of the result as it is stored, or, of no method, of the original."""
    original = None if case.original is None else read(case.original).rgb
    if folder.name == TRUTH:
        assert original is not None
        result, original = original, None
    else:
        result = read(folder / f"{case.name}.png").rgb
    values = measured(result, original, measures, [])
    return {
        "name": case.name,
        "low_sha256": pixels_sha256(read(case.low).rgb.contiguous()),
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
