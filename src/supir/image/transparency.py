"""The colours under transparent pixels, which say nothing: often black, and never to be seen.

Where a picture is resized, encoded or blended they would leak into what is shown as dark rims. So before any of that
they are replaced by the colours that are shown nearest to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_CELLS = 512
"""Cells along the longer side that a picture is looked at in to fill what is hidden."""
_SHOWN = 16
"""A pixel of alpha 1/16 or more keeps its own colour; the fewer levels are left below, the less it means."""


@dataclass(frozen=True, eq=False)
class Backdrop:
    """Of a picture with alpha: what its hidden pixels are filled with."""

    cells: Tensor
    """(C, rows, columns): the mean of what is shown in each square of `side` pixels, or near it where nothing is."""
    side: int

    @staticmethod
    def side_of(height: int, width: int) -> int:
        """Of the squares, in pixels."""
        return math.ceil(max(height, width) / _CELLS)

    @staticmethod
    def of(bands: Iterable[tuple[Tensor, Tensor]], side: int) -> Backdrop:
        """Of bands of rows, (C, rows, W) and alpha (1, rows, W), each of whole squares but the last."""
        shown, weights = [], []
        for colours, alpha in bands:
            shown.append(_summed(colours * alpha, side))
            weights.append(_summed(alpha, side))
        return Backdrop(_spread(torch.cat(shown, 1), torch.cat(weights, 1)), side)

    def behind(self, colours: Tensor, alpha: Tensor, rows: slice, columns: slice) -> Tensor:
        """(C, rows, columns) of the picture with what is hidden filled."""
        down, across = (torch.arange(part.start, part.stop) // self.side for part in (rows, columns))
        own = (alpha * _SHOWN).clamp(max=1)
        return torch.lerp(self.cells[:, down][:, :, across], colours, own)


def filled(colours: Tensor, alpha: Tensor) -> Tensor:
    """(C, H, W) of any range with the hidden pixels filled, by alpha (1, H, W) in [0, 1]."""
    if bool((alpha * _SHOWN >= 1).all()) or not bool(alpha.any()):
        return colours
    height, width = alpha.shape[-2:]
    backdrop = Backdrop.of([(colours, alpha)], Backdrop.side_of(height, width))
    return backdrop.behind(colours, alpha, slice(0, height), slice(0, width))


def _summed(values: Tensor, side: int) -> Tensor:
    height, width = values.shape[-2:]
    padded = functional.pad(values, (0, -width % side, 0, -height % side))
    return functional.avg_pool2d(padded[None], side)[0] * side**2


def _spread(shown: Tensor, weights: Tensor) -> Tensor:
    """Means of what is shown; where nothing is, those of larger and larger squares around."""
    means = shown / weights.clamp(min=1e-6)
    if bool((weights > 0).all()) or weights.shape[-1] * weights.shape[-2] == 1:
        return means
    larger = _spread(_summed(shown, 2), _summed(weights, 2))
    around = functional.interpolate(larger[None], scale_factor=2, mode="nearest")[0]
    return torch.where(weights > 0, means, around[:, : means.shape[1], : means.shape[2]])
