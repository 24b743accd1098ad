"""From the numbers of every picture to a table one can read, and a sentence about whether restoring helped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from supir.evaluation.metrics import METRICS
from supir.files.report import markdown_table

__all__ = [
    "Score",
    "finite_means",
    "mean_values",
    "paired",
    "table_rows",
    "times_table",
    "verdict",
]

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
                ours, theirs = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
                word = "yes" if METRICS[name].better(ours, theirs) else "NO"
                wins = sum(METRICS[name].better(*pair) for pair in pairs)
                change = f"{100 * (ours / theirs - 1):+.1f} %, " if theirs else ""
                parts.append(f"{METRICS[name].title} better than {other}: {word} ({change}{wins} of {len(pairs)})")
    decibels = [ours - theirs for ours, theirs in paired(scores, recipe, "psnr", result, preview)]
    if decibels:
        parts.append(f"PSNR {sum(decibels) / len(decibels):+.2f} dB against {preview}")
    return f"verdict {recipe}: " + "; ".join(parts)


def paired(scores: Sequence[Score], recipe: str, name: str, first: str, second: str) -> list[tuple[float, float]]:
    """A measure's values by two methods, for every picture that has both and finite ones."""
    found: dict[str, dict[str, float]] = {first: {}, second: {}}
    for score in scores:
        if score.recipe == recipe and score.method in found and math.isfinite(score.values.get(name, math.nan)):
            found[score.method][score.picture] = score.values[name]
    return [(value, found[second][key]) for key, value in found[first].items() if key in found[second]]
