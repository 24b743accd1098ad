"""Pictures without colours of their own: grey ones stored as RGB, and prints in one tone, as sepia and selenium.

Each channel of such a picture is its luma and an offset, which follows from the luma and may drift slowly across the
picture, as yellowed paper does. The networks are shown the luma; the result gets its offsets from its own luma. So
nothing of the colour noise of a scan is taken for colours, and no network can add any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from supir.image.picture import Reader, along, luma, reader_of
from supir.image.sizes import Resampling

_LEVEL = 1 / 255
_KNOTS = 64
"""Places on the luma at which the offsets are known."""
_CELLS = 8
"""Of the drift, along the longer side."""
_BLOCKS = 24
"""Along the shorter side, at least, of those whose means are compared; each of at most ``_LARGEST`` pixels a side."""
_LARGEST = 12
_FAR, _APART = 8 * _LEVEL, 1.5 * _LEVEL
"""How far a block's mean may be from luma and offsets, and what the root mean square of that may be."""
_COLOURFUL = 16 * _LEVEL
"""The root mean square, of pixels of a sample, from which on nobody need look closer."""
_GREY = 0.75 * _LEVEL
"""Offsets below it are rounding."""
_ROWS = 512
"""Of what is looked at in one go."""


@dataclass(frozen=True, eq=False)
class Toning:
    """What a picture's channels are beside its luma; None for both where they are equal."""

    curve: Tensor | None = None
    """(3, knots): the offsets by luma, from 0 to 1, in [0, 1]."""
    drift: Tensor | None = None
    """(3, rows, columns) of cells: what is added to them."""

    @property
    def note(self) -> dict[str, str]:
        """For the record."""
        return {"colours": "grey" if self.curve is None else "one tone"}

    def coloured(self, grey: Tensor, size: Sequence[int], top: int = 0) -> Tensor:
        """(3, rows, W) of luma (1, rows, W), both in [-1, 1]: rows from ``top`` of a picture of (height, width)."""
        if self.curve is None or self.drift is None:
            return grey.expand(3, -1, -1)
        found = torch.empty(3, *grey.shape[1:])
        for first in range(0, grey.shape[1], _ROWS):
            part = grey[:, first : first + _ROWS]
            rows = slice(top + first, top + first + part.shape[1])
            offsets = _at(self.curve, part[0] * 0.5 + 0.5) + _spread(self.drift, size, rows)
            found[:, first : first + _ROWS] = part + 2 * offsets
        return found.clamp_(-1, 1)


def toning_of_pixels(pixels: Tensor) -> Toning | None:
    """As ``toning_of``, of (3, H, W) in [-1, 1]."""
    height, width = pixels.shape[-2:]
    return toning_of(reader_of(pixels), height, width)


def toning_of(read: Reader, height: int, width: int) -> Toning | None:
    """The toning of a picture; None where it has colours.

    Every block's mean colour of a picture with a toning is that toning's within a few levels of 255: what is lost by
    taking a picture of faint colours for a toned one is less than one sees.
    """
    block = max(1, min(_LARGEST, min(height, width) // _BLOCKS))
    whole = slice(0, width)
    if _is_colourful(torch.cat([read(rows, whole) for rows in _sampled(height)], 1)):
        return None
    curve, weights = _curve_of(_bands(read, height, width, block), max(1, block // 4))
    if curve is None:
        return Toning()
    means = [_means(_rest(band, curve), block) for band in _bands(read, height, width, block)]
    blocks = torch.cat(means, 1)
    rows, columns = blocks.shape[1:]
    ratio = min(1.0, _CELLS / max(rows, columns))
    drift = F.adaptive_avg_pool2d(blocks, (math.ceil(rows * ratio), math.ceil(columns * ratio)))
    rest = blocks - _spread(drift, (rows, columns), slice(0, rows))
    if float(rest.abs().max()) > _FAR or float(rest.square().mean().sqrt()) > _APART:
        return None
    strength = float((curve.square().sum(0) * weights).sum().sqrt())
    if strength < _GREY and float(drift.abs().max()) < _LEVEL:
        return Toning()
    return Toning(curve, drift)


def _bands(read: Reader, height: int, width: int, block: int) -> Iterator[Tensor]:
    """The picture from top to bottom, without what is no whole block at its right and bottom."""
    columns, last = slice(0, width // block * block), height // block * block
    step = _ROWS // block * block
    return (read(slice(top, min(top + step, last)), columns) for top in range(0, last, step))


def _sampled(height: int) -> list[slice]:
    """Some rows here and there."""
    number, rows = 16, min(height, 4)
    tops = sorted({round(index * (height - rows) / (number - 1)) for index in range(number)})
    return [slice(top, top + rows) for top in tops]


def _is_colourful(sample: Tensor) -> bool:
    curve, _ = _curve_of(iter([sample]), 1)
    if curve is None:
        return False
    rest = _rest(sample, curve)
    rest = rest - rest.mean((1, 2), keepdim=True)
    return float(rest.square().mean().sqrt()) > _COLOURFUL


def _curve_of(bands: Iterator[Tensor], side: int) -> tuple[Tensor | None, Tensor]:
    """The mean offsets (3, knots) by luma of the means of squares of ``side`` pixels, and the share of each knot.

    None for the offsets where the channels of every pixel are equal.
    """
    sums, counts = torch.zeros(3, _KNOTS, dtype=torch.float64), torch.zeros(_KNOTS, dtype=torch.float64)
    equal = True
    for band in bands:
        equal = equal and bool((band[0] == band[1]).all()) and bool((band[1] == band[2]).all())
        small = _means(band, side)
        grey = luma(small)[0]
        knots = (grey * (_KNOTS - 1)).round().clamp(0, _KNOTS - 1).long().reshape(-1)
        counts += torch.bincount(knots, minlength=_KNOTS)
        for channel, plane in enumerate(small):
            sums[channel] += torch.bincount(knots, (plane - grey).reshape(-1).double(), minlength=_KNOTS)
    weights = counts / counts.sum().clamp(min=1)
    if equal:
        return None, weights
    places = torch.arange(_KNOTS)
    near = torch.exp(-0.5 * (places[:, None] - places).square().double() / 1.5**2)
    far = torch.exp(-0.5 * (places[:, None] - places).square().double() / 12**2) * 1e-6  # for knots nobody knows of
    kernel = near + far
    return ((sums @ kernel) / (counts @ kernel).clamp(min=1e-30)).float(), weights


def _rest(band: Tensor, curve: Tensor) -> Tensor:
    """What the channels are beside luma and offsets."""
    grey = luma(band)
    return band - grey - _at(curve, grey[0])


def _means(band: Tensor, side: int) -> Tensor:
    return band if side == 1 else F.avg_pool2d(band, side)


def _at(curve: Tensor, grey: Tensor) -> Tensor:
    """(3, H, W): the offsets at luma (H, W) in [0, 1]."""
    return along(curve, grey * (_KNOTS - 1))


def _spread(drift: Tensor, size: Sequence[int], rows: slice) -> Tensor:
    """Rows of the drift at the size of a picture."""
    height, width = size
    down, across = Resampling(drift.shape[1], height), Resampling(drift.shape[2], width)
    columns = slice(0, width)
    part = drift[:, down.needed(rows), across.needed(columns)]
    return down.weights(rows) @ part @ across.weights(columns).T
