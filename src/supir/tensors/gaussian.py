"""Gaussian windows: weighted means of planes, and blur."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_means(planes: Tensor, size: int, sigma: float) -> Tensor:
    """(N, H - size + 1, W - size + 1): means of (N, H, W) over the ``size`` x ``size`` windows that lie inside.

    Weighted by a Gaussian of ``sigma`` pixels about the middle of the window, in the type of the planes.
    """
    axis = torch.arange(size, dtype=planes.dtype, device=planes.device) - (size - 1) / 2
    line = torch.exp(-axis.square() / (2 * sigma**2))
    line /= line.sum()
    rows = F.conv2d(planes[:, None], line.reshape(1, 1, size, 1))
    return F.conv2d(rows, line.reshape(1, 1, 1, size))[:, 0]


def gaussian_blur(
    planes: Tensor, sigma: float, *, mode: Literal["reflect", "replicate"], reach: int | None = None
) -> Tensor:
    """(N, H, W) under a Gaussian, of the same size and type.

    Args:
        planes: of floats.
        sigma: in pixels; 0 and below leaves them as they are.
        mode: what stands beyond the border: the planes mirrored, the edge not doubled, or their edge carried on.
        reach: pixels a side after which the Gaussian is cut; unset: three deviations, rounded up.
    """
    if sigma <= 0:
        return planes
    reach = math.ceil(3 * sigma) if reach is None else reach
    return gaussian_means(F.pad(planes[:, None], (reach,) * 4, mode=mode)[:, 0], 2 * reach + 1, sigma)
