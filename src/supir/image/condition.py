"""How good a picture is as it is: its noise, the grid of its compression, and how sharp its edges are.

Each is one number of its luma, told apart from texture: noise where the picture is flattest, the grid against the same
differences beside it, sharpness on the strongest edges alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from supir.image.picture import from_integers, luma
from supir.image.reading import decode
from supir.tensors.gaussian import gaussian_blur

SMALLEST = 256
"""Pixels of the shorter side below which nothing is said: there is too little to tell by."""
MIDDLE = 2048
"""Pixels of the side that is looked at, at most."""
MOST_NOISE, MOST_GRID, LEAST_SHARPNESS, LEAST_RESOLUTION = 2.2, 1.18, 0.68, 0.19
"""Of a picture that is good; between what clean photographs show and the same with noise of 5, blurred by 1.2 pixels,
enlarged twice, or as JPEG of quality 50 (``tests/test_condition.py``)."""
HIDING, TEXTURED = 7.5, 1.35
"""A picture that varies by so many levels between one and two pixels where it is flattest, and within a pixel by no
more than so many times as much, is texture all over: a lawn (8.8, 1.31) or gravel (8.7, 1.11). There fine texture
cannot be told from noise, and hides it. White noise has 4 times as much within a pixel, fine grain 1.4 to 1.8."""
_BLOCK, _GRID = 16, 8


@dataclass(frozen=True)
class Condition:
    """What was measured of a picture."""

    noise: float
    """Standard deviation where it is flattest, in levels of 8 bits; 0 of what is texture all over, which hides it."""
    grid: float
    """Differences across the borders of 8 x 8 blocks over those beside them; 1: none is seen."""
    sharpness: float
    """Detail of the finest octave over that of the next, on edges; 0.6 is blurred by a pixel, 1 is sharp."""
    resolution: float
    """Strength of waves of two to three pixels over that of waves of five; 0.1 was enlarged twice, 0.25 was not."""

    @property
    def good(self) -> bool:
        """Whether there is nothing to mend."""
        sharp = self.sharpness >= LEAST_SHARPNESS and self.resolution >= LEAST_RESOLUTION
        return sharp and self.noise <= MOST_NOISE and self.grid <= MOST_GRID

    def __str__(self) -> str:
        flaws = f"noise {self.noise:.1f} of 255, grid of compression {self.grid:.2f}"
        return f"{flaws}, sharpness {self.sharpness:.2f}, resolution {self.resolution:.2f}"


def condition_of(path: Path | str, *, salvage: bool = False) -> Condition | None:
    """What a picture file shows of itself in its middle; None of one that is too small, or has no edges, to tell.

    Raises:
        ImageReadError: as ``read``.
    """

    def middle(image: Any, bits: int) -> Tensor:
        across, down = min(image.width, MIDDLE), min(image.height, MIDDLE)
        part = image.crop((image.width - across) // 2, (image.height - down) // 2, across, down)
        kind = np.uint16 if bits == 16 else np.uint8
        values = np.frombuffer(part.write_to_memory(), kind).reshape(down, across, part.bands)
        colours = from_integers(values[..., : 3 if part.bands > 2 else 1])
        return (luma(colours) if len(colours) == 3 else colours)[None] * 255

    grey, _ = decode(Path(path), middle, salvage=salvage, quiet=True)
    if min(grey.shape[-2:]) < SMALLEST:
        return None
    octaves = _octaves(grey)
    sharpness = _sharpness(*octaves)
    if sharpness is None:
        return None
    grid = max(_grid(grey[0, 0]), _grid(grey[0, 0].T))
    return Condition(_noise(grey, octaves), grid, sharpness, _resolution(grey[0, 0]))


def _noise(grey: Tensor, octaves: tuple[Tensor, Tensor]) -> float:
    """Of blocks, the flattest tenth but for those that are one value: clipped skies and black.

    Coarse grain shows in the next octave, where half of its deviation counts. 0 where texture hides it.
    """
    mask = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])[None, None] / 6  # Immerkaer 1996: blind to slopes
    deviations = _by_block(F.conv2d(grey, mask))
    varying = deviations > 0.05
    if not varying.any():
        return 0.0
    noise = deviations[varying].quantile(0.1)
    flattest = varying & (deviations <= noise)
    fine, coarse = (float(_by_block(octave[..., 1:-1, 1:-1])[flattest].square().mean().sqrt()) for octave in octaves)
    return 0.0 if coarse >= HIDING and fine <= TEXTURED * coarse else max(float(noise), coarse / 2)


def _by_block(plane: Tensor) -> Tensor:
    return F.avg_pool2d(plane.square(), _BLOCK).sqrt().flatten()


def _octaves(grey: Tensor) -> tuple[Tensor, Tensor]:
    """The finest, and the next: what varies within a pixel, and between one and two."""
    once, twice = (gaussian_blur(grey[0], sigma, mode="reflect")[None] for sigma in (1.0, 2.0))
    return grey - once, once - twice


def _grid(grey: Tensor) -> float:
    """Across columns: the strongest of the eight places where a grid may lie, over the middle of the others."""
    whole = grey.shape[1] // _GRID * _GRID - _GRID
    by_place = (grey[:, 1:] - grey[:, :-1]).abs().clamp(max=24)[:, :whole].reshape(len(grey), -1, _GRID).mean((0, 1))
    ordered = by_place.sort().values
    return float(ordered[-1] / ordered[:-1].median().clamp(min=1e-3))


def _sharpness(fine: Tensor, coarse: Tensor) -> float | None:
    """On the strongest edges, three blocks in a hundred."""
    fine, coarse = (F.avg_pool2d(octave.square(), _BLOCK // 2).flatten() for octave in (fine, coarse))
    edges = coarse >= coarse.quantile(0.97)
    strength = coarse[edges].mean()
    return None if strength < 4 else float((fine[edges].mean() / strength).sqrt())


def _resolution(grey: Tensor) -> float:
    """By the spectrum: interpolation leaves next to nothing beyond the waves of the smaller picture."""
    height, width = grey.shape
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)
    power = torch.fft.rfft2((grey - grey.mean()) * window).abs().square()
    frequency = torch.maximum(torch.fft.fftfreq(height).abs()[:, None], torch.fft.rfftfreq(width))
    fine, coarse = power[frequency > 0.32].mean(), power[(frequency > 0.16) & (frequency < 0.24)].mean()
    return float((fine / coarse.clamp(min=1e-9)).sqrt())
