"""Recorded noise in place of drawn."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from supir.errors import OptionError


class ReplayedNoise:
    """Recorded noise, handed out in order: for reproducing a run draw by draw.

    `recorded` is any iterable of (B, C, h, w) tensors, such as one (num_draws, B, C, h, w) tensor.
    """

    def __init__(self, recorded: Iterable[Tensor]) -> None:
        self._recorded = list(recorded)
        self.num_used = 0

    def __call__(self, like: Tensor) -> Tensor:
        """The next recorded noise. Raises OptionError when the record is used up or has another shape."""
        if self.num_used == len(self._recorded):
            raise OptionError(
                f"all {len(self._recorded)} recorded noises are used; "
                "the run that made them had fewer noisy steps than this one."
            )
        noise = self._recorded[self.num_used]
        if noise.shape != like.shape:
            raise OptionError(
                f"recorded noise {self.num_used} has shape {tuple(noise.shape)}; this run needs {tuple(like.shape)}."
            )
        self.num_used += 1
        return noise.to(like)
