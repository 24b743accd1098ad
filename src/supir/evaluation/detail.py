"""Detail balance: fidelity and perception in one number (ours; no paper has it).

Measures of fidelity punish detail in a slightly wrong place more than none at all, so blur wins; measures without
reference ask for any detail, so invention wins. Here each octave of detail is asked two things, place by place. Is it
as strong as in the original? And does it follow the original, run against it, or neither?

    none where there should be some           0      blur
    as strong, unrelated to the original      1/2    a plausible invention
    as strong, and the original's             1      right
    as strong, reversed, or far too strong    to 0   halos, noise, a grid
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from supir.evaluation.fidelity import check_pair, luma

__all__ = ["detail_balance"]

OCTAVES = (1.0, 2.0, 4.0, 8.0)
"""Deviations in pixels of the Gaussians between which a band of detail lies; the finest begins at the pixels."""
WINDOW = 2.0
"""Deviation of the window in which strength is measured, over the band's."""
THRESHOLD = 4.0
"""Variance in grey levels below which detail is not seen: it counts as equal."""


def detail_balance(picture: Tensor, reference: Tensor) -> float:
    """Geometric mean over four octaves of ``e (1 + r) / 2``, 1 for equal pictures (3, H, W) in [-1, 1]; on luma.

    In each octave, with the local deviations s, t of picture and reference and their covariance c: ``2 s t / (s^2 +
    t^2)`` is e, whether detail is as strong, and ``c / (s t)`` is r, whether it is the same. Their product is averaged
    with the weight s + t. As the mean is geometric, an octave that is missing is not made up for by the others.

    Raises:
        OptionError: sizes differ, or a side is below 49 pixels, the reach of the widest window.
    """
    check_pair(picture, reference, smallest=int(3 * WINDOW * OCTAVES[-1]) + 1)
    planes = torch.stack([luma(picture), luma(reference)])
    found = []
    for octave in OCTAVES:
        softer = blurred(planes, octave)
        band, wanted = planes - softer
        found.append(_balance(band, wanted, WINDOW * octave))
        planes = softer
    return math.prod(found) ** (1 / len(found))


def _balance(band: Tensor, wanted: Tensor, window: float) -> float:
    """Of one band (H, W), whose own mean is near zero everywhere."""
    moments = blurred(torch.stack([band * band, wanted * wanted, band * wanted]), window)
    s, t = moments[:2].clamp(min=0).sqrt()
    equal = (2 * s * t + THRESHOLD) / (s * s + t * t + THRESHOLD)
    related = (moments[2] + THRESHOLD) / (s * t + THRESHOLD)
    weight = s + t + 1e-6
    return float((weight * equal * (1 + related) / 2).sum() / weight.sum())


def blurred(planes: Tensor, sigma: float) -> Tensor:
    """(N, H, W) under a Gaussian cut at three deviations, mirrored at the borders, of the same size."""
    reach = int(3 * sigma)
    line = torch.exp(-torch.arange(-reach, reach + 1, dtype=planes.dtype).square() / (2 * sigma**2))
    line /= line.sum()
    rows = F.conv2d(F.pad(planes[:, None], (0, 0, reach, reach), mode="reflect"), line.reshape(1, 1, -1, 1))
    return F.conv2d(F.pad(rows, (reach, reach, 0, 0), mode="reflect"), line.reshape(1, 1, 1, -1))[:, 0]
