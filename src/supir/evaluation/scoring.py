"""Scores of picture files: each alone and against the original of its name; as CSV, JSON and a markdown table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from supir.errors import ImageError, OptionError
from supir.evaluation.metrics import METRICS, Measure
from supir.evaluation.summary import finite_means
from supir.files.report import csv_table, markdown_table
from supir.image import by_name, find_pictures, read

__all__ = ["Scored", "as_csv", "as_markdown", "score_pictures"]


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
        paths: of the pictures.
        references: folder of the originals, found by name without suffix; None leaves measures against them out.
        measures: by name, as ``open_measures`` gives them.
        other_name: what the original of a picture is called where none has the picture's own name.

    Raises:
        OptionError: two originals have one name.
    """
    originals = by_name(find_pictures(references) if references is not None else ())
    alone = {name: measure for name, measure in measures.items() if not METRICS[name].needs_reference}
    for path in paths:
        try:
            picture = read(path).rgb
            problems: list[str] = []
            values = _measured(picture, None, alone, problems)
            if references is not None:
                name = path.stem if path.stem in originals else other_name(path)
                if name not in originals:
                    raise ImageError(f"{references} holds no original of this name", path)
                original = read(originals[name]).rgb
                if original.shape == picture.shape:
                    against = {name: measure for name, measure in measures.items() if name not in alone}
                    values |= _measured(picture, original, against, problems)
                else:
                    sizes = (f"{pixels.shape[2]}x{pixels.shape[1]}" for pixels in (picture, original))
                    problems.append("it has {} pixels and its original {}; make them one size".format(*sizes))
            yield Scored(path=path, values=values, problems=problems)
        except ImageError as error:
            yield Scored(path=path, problems=[str(error)])


def _measured(
    picture: Tensor, original: Tensor | None, measures: Mapping[str, Measure], problems: list[str]
) -> dict[str, float]:
    found = {}
    for name, measure in measures.items():
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
