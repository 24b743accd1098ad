"""Pictures between bytes and tensors; degraded ones beside clean ones; the held-out ones that a run is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from supir.data.pixels import Pixels
from supir.degradation.process import Degradation, apply
from supir.degradation.recipes import draw
from supir.files import write_whole
from supir.training.photographs import Photographs

HELDOUT_SEED = 7919
"""Of the held-out crops: no sample of a run has it, as those are numbered from 0 after the run's own seed."""


def to_tensor(pictures: list[Pixels]) -> Tensor:
    """uint8 (H, W, 3) pictures to (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_pixels(batch: Tensor) -> list[Pixels]:
    """(B, 3, H, W) in [-1, 1] to uint8 (H, W, 3) pictures."""
    scaled = batch.detach().clamp(-1, 1).add(1).mul(127.5).round().byte()
    return list(scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy())


def psnr(first: Tensor, second: Tensor) -> float:
    """Mean over the batch of the peak signal-to-noise ratio in dB, for pictures in [-1, 1]."""
    error = (first.clamp(-1, 1) - second.clamp(-1, 1)).square().mean((1, 2, 3))
    return float((10 * torch.log10(4 / error)).mean())


def write_sheet(path: Path | None, rows: list[list[Pixels]]) -> None:
    """One picture of all rows, each a list of equally high pictures; without a path there is nothing to do.

    Raises:
        OSError: it cannot be written.
    """
    if path is None:
        return
    sheet = np.concatenate([np.concatenate(row, 1) for row in rows], 0)
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    write_whole(path, data.tobytes(), lasting=False)


def draw_degradation(rng: np.random.Generator, shares: Mapping[str, float]) -> Degradation:
    """A degradation of a recipe drawn by its share, ready to be stored and replayed (``to_json``)."""
    return draw(rng, str(rng.choice(list(shares), p=list(shares.values()))))


def degraded_by(degradation: Degradation, clean: Pixels) -> Pixels:
    """A uint8 picture (H, W, 3), degraded at its own size."""
    found = apply(degradation, (clean / 255).astype(np.float32))
    return np.round(found * 255).astype(np.uint8)


def degrade(rng: np.random.Generator, clean: Pixels, shares: Mapping[str, float]) -> Pixels:
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
