"""Degraded pictures beside clean ones, and the held-out ones that a run is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from supir.degradation.process import Degradation
from supir.degradation.recipes import apply, draw
from supir.training.crops import to_tensor
from supir.training.photographs import Photographs, Pixels
from supir.training.recipes import SMALL_MIXTURE, shares

SHARES = shares(SMALL_MIXTURE)
HELDOUT_SEED = 7919
"""Of the held-out crops: no sample of a run has it, as those are numbered from 0 after the run's own seed."""


def draw_degradation(rng: np.random.Generator, shares: Mapping[str, float] = SHARES) -> Degradation:
    """A degradation of a recipe drawn by its share, ready to be stored and replayed (``to_json``)."""
    return draw(rng, str(rng.choice(list(shares), p=list(shares.values()))))


def degraded_by(degradation: Degradation, clean: Pixels) -> Pixels:
    """A uint8 picture (H, W, 3), degraded at its own size."""
    found = apply(degradation, (clean / 255).astype(np.float32))
    return np.round(found * 255).astype(np.uint8)


def degrade(rng: np.random.Generator, clean: Pixels, shares: Mapping[str, float] = SHARES) -> Pixels:
    """A degraded uint8 picture of the same size, from a mixture of recipes."""
    return degraded_by(draw_degradation(rng, shares), clean)


@dataclass(frozen=True, kw_only=True)
class Heldout:
    """Fixed pairs: ``clean`` and ``degraded`` (N, 3, S, S) in [-1, 1], and what each shows."""

    clean: Tensor
    degraded: Tensor
    captions: list[str]

    @staticmethod
    def of(photographs: Photographs, size: int, shares: Mapping[str, float], number: int) -> Heldout:
        """The first ``number`` pairs that ``HELDOUT_SEED`` draws."""
        generators = [np.random.default_rng((HELDOUT_SEED, index)) for index in range(number)]
        crops = [photographs.draw(rng, size) for rng in generators]
        degraded = [degrade(rng, crop.pixels, shares) for rng, crop in zip(generators, crops, strict=True)]
        return Heldout(
            clean=to_tensor([crop.pixels for crop in crops]),
            degraded=to_tensor(degraded),
            captions=[crop.caption for crop in crops],
        )
