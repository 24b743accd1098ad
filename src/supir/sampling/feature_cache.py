"""What a network computed in an earlier step, kept to be taken again in the steps after.

Neighbouring steps of a solver ask a network nearly the same question. A `StepCache` keeps some tensors of each row that
was evaluated (one sample of one tile in one branch of text guidance, named by an integer) for a number of steps. It is
made for one restoration and handed to who needs it; networks hold no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from supir.sampling.solvers import Denoiser


class _Kept(NamedTuple):
    step: int
    tensors: list[Tensor]


class StepCache:
    """Tensors by row, valid for `every` steps counting the one that computed them; with 1 nothing is ever kept."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._step = 0
        self._rows: dict[int, _Kept] = {}

    @property
    def in_use(self) -> bool:
        """Whether anything is ever kept."""
        return self._every > 1

    def next_step(self) -> None:
        """A solver takes its next step: everything kept is one step older, and what is too old for it is dropped."""
        self._step += 1
        # A branch that is not evaluated any more would otherwise fill memory to the end.
        self._rows = {row: kept for row, kept in self._rows.items() if self._step - kept.step < self._every}

    def get(self, rows: Sequence[int]) -> list[Tensor] | None:
        """What `put` was given, batched in the order of `rows`; None unless it is there for every one of them."""
        if not rows or any(row not in self._rows for row in rows):
            return None
        return [torch.stack(parts) for parts in zip(*(self._rows[row].tensors for row in rows), strict=True)]

    def put(self, rows: Sequence[int], tensors: Sequence[Tensor]) -> None:
        """Keep tensors (len(rows), ...), computed in this step, in place of what was kept of these rows."""
        if not self.in_use:
            return
        for place, row in enumerate(rows):
            # Cloned: a view would keep the whole batch alive.
            self._rows[row] = _Kept(self._step, [tensor[place].clone() for tensor in tensors])


def counting_steps(denoise: Denoiser, *caches: StepCache) -> Denoiser:
    """Tell the caches that a step begins, at each call; solvers call once a step."""
    used = [cache for cache in caches if cache.in_use]
    if not used:
        return denoise

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        for cache in used:
            cache.next_step()
        return denoise(x, sigma)

    return counted
