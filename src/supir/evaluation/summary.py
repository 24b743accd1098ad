"""From the numbers of every picture to a table one can read, and a sentence about whether restoring helped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from supir.errors import ImageError, OptionError
from supir.evaluation.metrics import METRICS, Measure
from supir.files.report import csv_table, markdown_table
from supir.image import by_name, find_pictures, read

JUDGES = ("efficientnet_lite0_distance", "niqe")
"""The measures that the verdict asks."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The measures of one picture, restored from one recipe's degradation by one method."""

    recipe: str
    picture: str
    method: str
    values: dict[str, float]
    """By name of measure; those that do not apply are left out."""
    seconds: float | None = None
    """What the method took, where it was timed alone."""


def mean_values(scores: Iterable[Score], recipe: str, method: str) -> dict[str, float]:
    """``finite_means``, ``seconds`` and ``pictures`` (how many) over one recipe and method."""
    chosen = [score for score in scores if score.recipe == recipe and score.method == method]
    found = {"pictures": float(len(chosen)), **finite_means(score.values for score in chosen)}
    seconds = [score.seconds for score in chosen if score.seconds is not None]
    if seconds:
        found["seconds"] = sum(seconds) / len(seconds)
    return found


def finite_means(pictures: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Of every measure over the pictures that have a finite value of it (the PSNR of equal ones is infinite)."""
    found = {}
    of_each = list(pictures)
    for name in METRICS:
        values = [values[name] for values in of_each if math.isfinite(values.get(name, math.nan))]
        if values:
            found[name] = math.fsum(values) / len(values)
    return found


def _rows(scores: Sequence[Score]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((score.recipe, score.method) for score in scores))


def table_rows(scores: Sequence[Score]) -> list[list[str]]:
    """A table as cells, its heading first: recipe x method in the order they came, the measures that occur.

    An arrow shows which way is better. Times are not in it, as they differ from run to run (see ``times_table``).
    """
    means = {row: mean_values(scores, *row) for row in _rows(scores)}
    columns = [name for name in METRICS if any(name in found for found in means.values())]
    rows = [["recipe", "method", "pictures", *(METRICS[name].heading for name in columns)]]
    for (recipe, method), found in means.items():
        cells = [f"{found[name]:.{METRICS[name].decimals}f}" if name in found else "–" for name in columns]
        rows.append([recipe, method, f"{found['pictures']:.0f}", *cells])
    return rows


def times_table(scores: Sequence[Score]) -> str:
    """Mean seconds a picture of every method that was timed, over all recipes, as markdown."""
    rows = [["method", "pictures", "seconds"]]
    for method in dict.fromkeys(score.method for score in scores):
        seconds = [score.seconds for score in scores if score.method == method and score.seconds is not None]
        if seconds:
            rows.append([method, str(len(seconds)), f"{sum(seconds) / len(seconds):.2f}"])
    return markdown_table(rows)


RIVALS = ("bicubic", "preview", "real-esrgan")
"""The methods that a result is held against."""


def verdict(scores: Sequence[Score], recipe: str, result: str, preview: str = "preview") -> str:
    """One line: is the result better than its rivals by each judge, and what does it cost in PSNR.

    Each comparison is over the pictures that both methods have. In brackets how much the mean changes, and on how
    many pictures the result is better: a hair's breadth, or a mean moved by one picture, shows.
    """
    methods = dict.fromkeys(score.method for score in scores if score.recipe == recipe)
    others = [method for method in methods if method in RIVALS]
    parts = []
    for name in JUDGES:
        for other in others:
            pairs = paired(scores, recipe, name, result, other)
            if pairs:
                ours, theirs, wins = means_and_wins(name, pairs)
                word = "yes" if METRICS[name].better(ours, theirs) else "NO"
                change = f"{100 * (ours / theirs - 1):+.1f} %, " if theirs else ""
                parts.append(f"{METRICS[name].title} better than {other}: {word} ({change}{wins} of {len(pairs)})")
    decibels = [ours - theirs for ours, theirs in paired(scores, recipe, "psnr", result, preview)]
    if decibels:
        parts.append(f"PSNR {sum(decibels) / len(decibels):+.2f} dB against {preview}")
    return f"verdict {recipe}: " + "; ".join(parts)


def means_and_wins(name: str, pairs: Sequence[tuple[float, float]]) -> tuple[float, float, int]:
    """Both means of a measure's values, and how often the first one is better."""
    first, second = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return first, second, sum(METRICS[name].better(*pair) for pair in pairs)


def paired(scores: Sequence[Score], recipe: str, name: str, first: str, second: str) -> list[tuple[float, float]]:
    """A measure's values by two methods, for every picture that has both and finite ones."""
    found: dict[str, dict[str, float]] = {first: {}, second: {}}
    for score in scores:
        if score.recipe == recipe and score.method in found and math.isfinite(score.values.get(name, math.nan)):
            found[score.method][score.picture] = score.values[name]
    return [(value, found[second][key]) for key, value in found[first].items() if key in found[second]]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One picture."""

    path: Path
    values: dict[str, float] = field(default_factory=dict)
    """By measure; one that cannot be had for this picture is left out."""
    problems: list[str] = field(default_factory=list)
    """Why some could not."""

    def as_json(self) -> dict[str, Any]:
        """For a file; a number that is not finite (the PSNR of equal pictures) becomes None."""
        values = {name: value if math.isfinite(value) else None for name, value in self.values.items()}
        return {"picture": self.path.name, "values": values, "problems": self.problems}


def score_pictures(
    paths: Sequence[Path],
    references: Path | None,
    measures: Mapping[str, Measure],
    other_name: Callable[[Path], str] = lambda path: path.stem,
) -> Iterator[Scored]:
    """Score picture after picture; one that cannot be read has no values and says why.

    Args:
        references: folder of the originals, found by name without suffix; None leaves measures against them out.
        measures: by name, as ``open_measures`` gives them.
        other_name: what the original of a picture is called where none has the picture's own name.

    Raises:
        OptionError: two originals have one name.
    """
    originals = by_name(find_pictures(references) if references is not None else ())
    for path in paths:
        try:
            picture, original, problems = read(path).rgb, None, list[str]()
            if references is not None:
                name = path.stem if path.stem in originals else other_name(path)
                if name not in originals:
                    raise ImageError(f"{references} holds no original of this name", path)
                original = read(originals[name]).rgb
                if original.shape != picture.shape:
                    sizes = (f"{pixels.shape[2]}x{pixels.shape[1]}" for pixels in (picture, original))
                    problems.append("it has {} pixels and its original {}; make them one size".format(*sizes))
                    original = None
            values = measured(picture, original, measures, problems)
            yield Scored(path=path, values=values, problems=problems)
        except ImageError as error:
            yield Scored(path=path, problems=[str(error)])


def measured(
    picture: Tensor, original: Tensor | None, measures: Mapping[str, Measure], problems: list[str]
) -> dict[str, float]:
    """By measure; without an original those against one are left out, and one that refuses the size says so."""
    found = {}
    for name, measure in measures.items():
        if original is None and METRICS[name].needs_reference:
            continue
        try:
            found[name] = measure(picture, original)
        except OptionError as error:
            problems.append(f"{name}: {error}")
    return found


def as_csv(scored: Sequence[Scored], names: Sequence[str]) -> str:
    """A line a picture, six decimals, empty where there is no value."""
    rows = ([f"{one.values[name]:.6f}" if name in one.values else "" for name in names] for one in scored)
    return csv_table([["picture", *names], *([one.path.name, *row] for one, row in zip(scored, rows, strict=True))])


def as_markdown(scored: Sequence[Scored], names: Sequence[str], absent: Mapping[str, str]) -> str:
    """A row a measure: its mean, over how many pictures, and which way is better; then those that could not run."""
    found = finite_means(one.values for one in scored)
    rows = [["measure", "mean", "pictures"]]
    for name in names:
        metric = METRICS[name]
        values = [one.values[name] for one in scored if name in one.values]
        if values:
            finite = sum(map(math.isfinite, values))
            shown = f"{found[name]:.{metric.decimals}f}" if finite else "∞"  # the PSNR of equal pictures
            rows.append([metric.heading, shown, str(finite or len(values))])
    for reason in dict.fromkeys(absent.values()):
        titles = ", ".join(METRICS[name].title for name in absent if absent[name] == reason)
        rows.append([titles, f"not here: {reason}", "0"])
    return markdown_table(rows)
