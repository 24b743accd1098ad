"""Noise levels as plain numbers: what schedules are spaced by, and what a set of options is judged by.

Light, since options are read where torch is not. ``supir.sampling.sigmas`` makes tensors of the same.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

NUM_TRAINING_LEVELS = 1000
MAX_CHURN = math.sqrt(2) - 1
"""Largest churn factor, so that a step at most doubles the noise variance (EDM, Algorithm 2; paper, Algorithm 1)."""


@cache
def training_levels() -> tuple[float, ...]:
    """SDXL's levels, ascending, to a relative 1e-6; the networks are told those of ``training_sigmas``, rounded alike.

    They are computed twice, since the order in which torch multiplies decides the last bit of some.
    """
    signal, levels = 1.0, []
    for root in evenly(math.sqrt(0.00085), math.sqrt(0.012), NUM_TRAINING_LEVELS):
        signal *= 1 - root**2
        levels.append(math.sqrt((1 - signal) / signal))
    return tuple(levels)


def evenly(first: float, last: float, count: int) -> list[float]:
    """``count`` numbers at equal distances, counted from both ends so that both are met exactly."""
    if count == 1:
        return [first]
    step = (last - first) / (count - 1)
    return [first + i * step if i < count // 2 else last - (count - 1 - i) * step for i in range(count)]


def karras(count: int, low: float, high: float, rho: float = 7.0) -> list[float]:
    """``count`` levels falling from ``high`` to ``low`` as EDM equation 5 spaces them."""
    first, last = high ** (1 / rho), low ** (1 / rho)
    return [(first + part * (last - first)) ** rho for part in evenly(0.0, 1.0, count)]


def log_snr(count: int, low: float, high: float) -> list[float]:
    """``count`` levels falling from ``high`` to ``low`` by equal factors."""
    return [math.exp(logarithm) for logarithm in evenly(math.log(high), math.log(low), count)]


def trailing_timesteps(count: int, top: int = NUM_TRAINING_LEVELS) -> list[int]:
    """``count`` of the first ``top`` timesteps at equal distances, falling from the last: 999, 874, 749 ... 124 for 8.

    Bases distilled to so many steps were taught at these (arXiv 2305.08891, section 3.3, calls it trailing).
    """
    return [round(top * (count - index) / count) - 1 for index in range(count)]


def trailing(count: int, low: float, high: float) -> list[float]:
    """``count`` levels falling from ``high``: those of `trailing_timesteps` below it; by equal factors where it has not
    so many below.
    """
    table = training_levels()
    top = bisect_right(table, high * (1 + 1e-6))
    if top < count:
        return log_snr(count, low, high)
    return [high, *(table[index] for index in trailing_timesteps(count, top)[1:])]


SPACINGS = {"karras": karras, "log_snr": log_snr, "trailing": trailing}
"""The choices of the option ``grid``."""


def even_timesteps(count: int) -> list[int]:
    """``count`` indices of training levels, evenly spaced, ascending: 999 always, 0 only with all 1000."""
    if count == NUM_TRAINING_LEVELS:
        return list(range(NUM_TRAINING_LEVELS))
    last = NUM_TRAINING_LEVELS - 1
    step = -last / count  # multiplied, as numpy's linspace does: another rounding would move single indices
    return [int(last + index * step) for index in reversed(range(count))]


def cut(levels: Sequence[float], start: float | None) -> list[float]:
    """The falling levels from ``start`` on, which is the first of them; all where it is None."""
    return [*levels] if start is None else [start, *(level for level in levels if level < start)]
