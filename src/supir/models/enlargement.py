"""Enlarging and reducing by a whole factor inside a network, as ``supir.image.resize`` does it, by convolutions alone.

They run on every device and give borders the edge's own colour. All of it is computed in float32.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

FACTOR = 4
"""The enlargement that ``unenlarged`` undoes."""


def enlarged(pictures: Tensor, factor: int) -> Tensor:
    """(B, C, h, w) to (B, C, factor * h, factor * w)."""
    lines = _enlarging(factor)
    weight = torch.einsum("ka,lb->klab", lines, lines).reshape(factor**2, 1, 5, 5)
    return F.pixel_shuffle(_convolved(pictures, weight, 2), factor)[:, :, 0]


def reduced(pictures: Tensor, factor: int) -> Tensor:
    """(B, C, factor * h, factor * w) to (B, C, h, w), antialiased."""
    line = _reducing(factor)
    return _convolved(pictures, torch.outer(line, line)[None, None], (len(line) - factor) // 2, factor)[:, :, 0]


def unenlarged(pictures: Tensor) -> Tensor:
    """Of pictures (B, C, 4h, 4w) those that they were enlarged from, (B, C, h, w): ``enlarged`` undone.

    Of those that are no enlargement it takes every fourth pixel, sharpened.
    """
    line = undoing()[1]
    return _convolved(pictures, torch.outer(line, line)[None, None], FACTOR, FACTOR)[:, :, 0]


def beyond_enlargement(pictures: Tensor) -> Tensor:
    """How far each pixel of pictures (B, C, 4h, 4w) is from where it would be in one enlarged four times."""
    return (pictures.float() - enlarged(unenlarged(pictures), FACTOR)).abs()


@lru_cache
def undoing() -> Tensor:
    """Weights (3, 12) of a line of twelve pixels, for three pixels of the line that it was enlarged from four times.

    The pixels of the small line that twelve can tell are few enough to be told exactly. The least squares take small
    lines to vary as pictures do, which decides nothing where the answer is exact.
    """
    small = 15
    large = _resized_line(_identity(small), FACTOR * small).T[24:36]
    place = torch.arange(small, device="cpu")
    alike = 0.95 ** (place[:, None] - place).abs().double()
    told = large @ alike
    return torch.linalg.solve(told @ large.T + 4e-6 * _identity(12), told[:, 6:9]).T


@lru_cache
def _enlarging(factor: int) -> Tensor:
    """Weights (factor, 5): of the pixels that one becomes, over it and two on either side."""
    return _resized_line(_identity(5), 5 * factor)[:, 2 * factor : 3 * factor].T


@lru_cache
def _reducing(factor: int) -> Tensor:
    """Weights (4 * factor,) of one pixel over those that it is made of."""
    pixels = 9 * factor
    line = _resized_line(_identity(pixels), 9)[:, 4]
    middle = pixels // 2
    return line[middle - 2 * factor + factor % 2 : middle + 2 * factor + factor % 2]


def _identity(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64, device="cpu")  # whatever device networks are being built on


def _resized_line(lines: Tensor, length: int) -> Tensor:
    """Lines (N, n) to (N, length) by the antialiased cubic."""
    size = 1, length
    return F.interpolate(lines[:, None, None], size, mode="bicubic", align_corners=False, antialias=True)[:, 0, 0]


def _convolved(pictures: Tensor, weight: Tensor, border: int, stride: int = 1) -> Tensor:
    """Each plane of pictures (B, C, H, W) by itself: (B, C, N, h, w)."""
    kind = pictures.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        planes = F.pad(pictures.float(), (border,) * 4, mode="replicate").flatten(0, 1)[:, None]
        found = F.conv2d(planes, weight.to(planes), stride=stride)
    return found.reshape(*pictures.shape[:2], *found.shape[1:])
