"""Thresholds with a guarantee: conformal risk control (Angelopoulos et al., arXiv 2208.02814, theorem 1).

Of a loss in [0, 1] that only grows with the threshold, known for n photographs, the largest threshold is taken at which
(sum of the losses + 1) / (n + 1) is at most the level. Then the loss that is to be expected of one more photograph of
their kind is at most the level. As in arXiv 2502.09664 the thing that is cut by it is a map of how far a result may be
off.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from supir.errors import OptionError

STEPS = 256
"""Thresholds that are tried."""
HIGHEST = 5.6
"""Of the map, whose values are the logarithms of one more than grey levels."""


def thresholds() -> Tensor:
    """(STEPS,): those that are tried, rising; below the first lies nothing."""
    return torch.linspace(0, HIGHEST, STEPS)


def miss_curve(values: Tensor, wrong: Tensor) -> Tensor:
    """(STEPS,): of the places that are wrong the share whose map value is at most each threshold; 0 where none is."""
    return _share_at_most(values[wrong])


def alarm_curve(values: Tensor, right: Tensor) -> Tensor:
    """(STEPS,): of the places that are right the share whose map value is at least each threshold, for falling ones."""
    found = values[right].flatten().sort().values
    if not len(found):
        return torch.zeros(STEPS)
    below = torch.searchsorted(found, thresholds().flip(0))
    return 1 - below / len(found)


def _share_at_most(values: Tensor) -> Tensor:
    found = values.flatten().sort().values
    if not len(found):
        return torch.zeros(STEPS)
    return torch.searchsorted(found, thresholds(), right=True) / len(found)


def controlled(losses: Tensor, level: float) -> int:
    """The last of the thresholds at which the expected loss is at most ``level``; -1 where there is none.

    Args:
        losses: (n, STEPS), one row a photograph, never falling along it.
        level: 0 to 1.

    Raises:
        OptionError: so few photographs cannot promise that.
    """
    number = len(losses)
    if level * (number + 1) < 1:
        raise OptionError(
            f"level is {level:g}; {number} photographs can promise {1 / (number + 1):.3f} at best: ask for no less, or"
            " calibrate with more"
        )
    bound = (losses.sum(0) + 1) / (number + 1)
    return int((bound <= level).sum()) - 1


def quantile(scores: Tensor, rate: float) -> float:
    """The threshold that one more score of the kind of these, (n,), is above with a probability of at most ``rate``.

    Raises:
        OptionError: so few cannot promise that.
    """
    rank = math.ceil((len(scores) + 1) * (1 - rate))
    if rank > len(scores):
        raise OptionError(
            f"{len(scores)} photographs can promise a rate of false alarms of {1 / (len(scores) + 1):.3f} at best, and"
            f" {rate:g} is asked for; calibrate with more"
        )
    return float(scores.sort().values[rank - 1])
