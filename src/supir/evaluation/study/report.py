"""What the votes say: how often a method was preferred to the other of a pair, or to all others, and how sure that is.

The votes of one participant, or about one picture, are alike, so that they tell less than as many independent ones.
Three intervals of the same preference stand side by side: as if all votes were independent (Wilson), over other
participants, and over other pictures (both by a cluster bootstrap). A dozen lines, which tests hold against
scipy.stats: a report needs no extra.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from supir.evaluation.study.store import Vote
from supir.files.report import csv_table, markdown_table

ALL = "all"
"""In place of a recipe: the votes of all."""
RESAMPLES = 4000
"""Of the bootstrap."""
_Z = 1.959963984540054
"""The normal distribution has 95 % within so many deviations."""

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Two methods, or one and all that were shown with it, compared by the votes over one recipe or all."""

    recipe: str
    first: str
    second: str | None
    """None where more than two were shown at once: all others."""
    first_votes: int
    second_votes: int
    """For the second, or for any of the others."""
    ties: int
    """Answers that none is the best."""
    participants: int
    pictures: int
    preference: float | None
    """For the first, of the votes that are no ties, 0 to 1; None without such."""
    wilson: Interval | None
    """95 %, were all votes independent."""
    by_participants: Interval | None
    """95 %, by a bootstrap over participants; None with fewer than two."""
    by_pictures: Interval | None
    """95 %, by a bootstrap over pictures; None with fewer than two."""
    p_value: float | None
    """Of an exact two-sided sign test, were all votes independent; None where more than two were shown at once."""
    left: float | None
    """The share of the first place, of the votes that are no ties: far from one in so many places, somebody did not
    look."""


def preferences(votes: Sequence[Vote]) -> list[Preference]:
    """Over all votes, then by recipe where there are any: every pair of methods, or every method against all others."""
    found = []
    recipes = sorted({vote.recipe for vote in votes} - {""})
    for recipe in [ALL, *recipes]:
        chosen = [vote for vote in votes if recipe in (ALL, vote.recipe)]
        for methods in sorted({vote.methods for vote in chosen}):
            votes_for = [vote for vote in chosen if vote.methods == methods]
            first, *others = methods
            found += [_preference(recipe, votes_for, one) for one in (methods if others[1:] else (first,))]
    return found


def _preference(recipe: str, votes: Sequence[Vote], method: str) -> Preference:
    """Of votes about questions with the same methods."""
    methods = votes[0].methods
    decided = [vote for vote in votes if vote.chosen is not None]
    first = sum(vote.chosen == method for vote in decided)
    left = sum(vote.chosen == vote.shown[0] for vote in decided)
    return Preference(
        recipe=recipe,
        first=method,
        second=methods[1] if len(methods) == 2 else None,
        first_votes=first,
        second_votes=len(decided) - first,
        ties=len(votes) - len(decided),
        participants=len({vote.participant for vote in votes}),
        pictures=len({vote.picture for vote in votes}),
        preference=first / len(decided) if decided else None,
        wilson=wilson(first, len(decided)) if decided else None,
        by_participants=_clustered(decided, method, lambda vote: vote.participant),
        by_pictures=_clustered(decided, method, lambda vote: vote.picture),
        p_value=sign_test(first, len(decided) - first) if len(methods) == 2 else None,
        left=left / len(decided) if decided else None,
    )


def wilson(successes: int, trials: int) -> Interval:
    """The 95 % score interval of a proportion (Wilson 1927), each trial independent; ``trials`` is above 0."""
    share, spread = successes / trials, _Z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def sign_test(first: int, second: int) -> float:
    """How likely votes at least as uneven are when both are as good; exact, two-sided."""
    votes, fewer = first + second, min(first, second)
    return min(1.0, 2 * sum(math.comb(votes, k) for k in range(fewer + 1)) / 2**votes)


def cluster_interval(counts: npt.NDArray[np.int64]) -> Interval:
    """The 95 % percentile interval of a share when whole clusters are drawn anew; the same for the same counts.

    ``counts`` (clusters, 2) are votes for the first and the second; each cluster has some.
    """
    clusters = len(counts)
    times = np.random.default_rng(0).multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES)
    first, second = (times @ counts).T
    low, high = np.quantile(first / (first + second), (0.025, 0.975))
    return float(low), float(high)


def _clustered(votes: Sequence[Vote], method: str, cluster: Callable[[Vote], object]) -> Interval | None:
    counts: dict[object, list[int]] = {}
    for vote in votes:
        counts.setdefault(cluster(vote), [0, 0])[vote.chosen != method] += 1
    # sorted, so that the order in which the votes came does not change what is drawn
    return cluster_interval(np.array(sorted(counts.values()))) if len(counts) > 1 else None


def as_markdown(found: Sequence[Preference]) -> str:
    """A row a pair, or a method that was shown with several, in percent, and under it what its columns are."""
    head = (
        "recipe,question,votes,ties,preferred,95 % Wilson,95 % participants,95 % pictures,p,participants,pictures,left"
    )
    pairs = all(one.second is not None for one in found)
    rows = [head.split(",") if pairs else head.replace("question", "best").replace("left", "first place").split(",")]
    for one in found:
        intervals = (one.wilson, one.by_participants, one.by_pictures)
        rows.append(
            [
                one.recipe,
                f"{one.first} over {one.second}" if one.second is not None else one.first,
                f"{one.first_votes} : {one.second_votes}",
                str(one.ties),
                _percent(one.preference),
                *("–" if ends is None else f"{_percent(ends[0])} to {_percent(ends[1])}" for ends in intervals),
                "–" if one.p_value is None else f"{one.p_value:.4f}",
                str(one.participants),
                str(one.pictures),
                _percent(one.left),
            ]
        )
    return f"{markdown_table(rows)}\n\n{_OF_PAIRS if pairs else _OF_BEST}{_LEGEND}"


_OF_PAIRS = """\
- preferred: the share of the first among the votes that are no ties, in percent
- left: the share of the left picture among the votes that are no ties, about 50 when people look
- p: exact two-sided sign test, were all votes independent
"""
_OF_BEST = """\
- votes: for the method as the best of all that were shown at once, and for any other; ties: none could be told the best
- preferred: the method's share of the votes that are no ties, in percent; by chance 100 by the number of methods
- first place: the share of the first picture of those votes, about 100 by the number of methods when people look
"""
_LEGEND = f"""\
- 95 % Wilson: the interval of the share that is preferred, were all votes independent
- 95 % participants, 95 % pictures: when whole participants, or whole pictures, are drawn anew ({RESAMPLES} bootstrap
  samples, seed 0, percentiles); too narrow where there are few of them"""


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def as_csv(found: Sequence[Preference]) -> str:
    """A line as a row of `as_markdown`; shares from 0 to 1 with six decimals, intervals in two columns.

    What there is not is empty.
    """
    rows = []
    for one in found:
        cells: dict[str, object] = {}
        for name, value in asdict(one).items():
            if name in ("wilson", "by_participants", "by_pictures"):
                low, high = value or ("", "")
                cells |= {f"{name}_low": low, f"{name}_high": high}
            else:
                cells[name] = "" if value is None else value
        rows.append({name: f"{value:.6f}" if isinstance(value, float) else value for name, value in cells.items()})
    return csv_table([[*rows[0]], *(row.values() for row in rows)] if rows else [])
