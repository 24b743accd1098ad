"""What stands around each place: means in windows, and cells of pixels.

Planes are float32 in grey levels, 0 to 255. A cell is ``CELL`` x ``CELL`` pixels of the result, the unit of every map.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from supir.tensors.gaussian import gaussian_blur

CELL = 4
"""Pixels of the result a side of one place of a map."""
LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, on the encoded values."""


def levels(pixels: Tensor) -> Tensor:
    """(3 or 1, H, W) in [-1, 1] as (3, H, W) grey levels, 0 to 255."""
    return pixels.detach().float().cpu().clamp(-1, 1).add(1).mul(127.5).expand(3, -1, -1)


def luma(picture: Tensor) -> Tensor:
    """(1, H, W) of (3, H, W) in grey levels."""
    return torch.einsum("c,chw->hw", picture.new_tensor(LUMA), picture)[None]


def opponent(picture: Tensor) -> Tensor:
    """(3, H, W): luma, red less luma, blue less luma; of RGB in the same order."""
    grey = luma(picture)
    return torch.cat([grey, picture[:1] - grey, picture[2:] - grey])


def gaussian(planes: Tensor, sigma: float) -> Tensor:
    """(C, H, W) under a Gaussian cut at three deviations; the edge is carried on beyond the picture."""
    return gaussian_blur(planes, sigma, mode="replicate")


def grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of cells of a result of this size; the last of each may be smaller."""
    return math.ceil(height / CELL), math.ceil(width / CELL)


def cells(planes: Tensor) -> Tensor:
    """(rows, columns): the mean of (C, H, W) over channels and the pixels of each cell."""
    plane = planes.mean(0)[None, None]
    height, width = plane.shape[-2:]
    rows, columns = grid(height, width)
    plane = F.pad(plane, (0, columns * CELL - width, 0, rows * CELL - height), mode="replicate")
    return F.avg_pool2d(plane, CELL)[0, 0]


def local_rms(planes: Tensor) -> Tensor:
    """(rows, columns): the root of the mean square of (C, H, W) around each cell, under a Gaussian of one cell."""
    return gaussian(cells(planes.square())[None], 1.0)[0].clamp(min=0).sqrt()


def gradient(plane: Tensor) -> Tensor:
    """(1, H, W): length of the central differences of (1, H, W), levels a pixel."""
    padded = F.pad(plane[None], (1, 1, 1, 1), mode="replicate")[0]
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return (across.square() + down.square()).sqrt()


def spread_over(plane: Tensor, height: int, width: int) -> Tensor:
    """(rows, columns) of another grid at a map's: (height, width), with straight lines between."""
    return F.interpolate(plane[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
