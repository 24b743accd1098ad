"""How much of the input a result explains, octave by octave and place by place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supir.audit.evidence import OCTAVES, Evidence
from supir.audit.windows import gaussian, luma

PLACES = 16
"""Rows and columns of the table by place, at most."""


@dataclass(frozen=True, kw_only=True)
class Octave:
    """Detail between two sizes. Strengths are deviations in grey levels, of luma."""

    pixels: tuple[float, float | None]
    """Wavelengths, about, in pixels of the input; the last has no upper end."""
    input: float
    unexplained: float
    """Of the input less the result that was damaged again."""
    noise: float
    """What the estimated noise alone would leave there."""

    @property
    def explained(self) -> float:
        """Share of the input's own detail here that the result explains, 0 to 1."""
        return _explained(self.input**2, self.unexplained**2, self.noise**2)

    def as_json(self) -> dict[str, Any]:
        """As reports have it."""
        numbers = {name: round(getattr(self, name), 3) for name in ("input", "unexplained", "noise", "explained")}
        return {"pixels": list(self.pixels), **numbers}


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """What came of damaging the result again and holding it against the input."""

    psnr: float
    """In dB, of all channels; noise is part of it."""
    octaves: tuple[Octave, ...]
    places: Tensor
    """(rows, columns): share of the input explained there, 0 to 1."""

    def as_json(self) -> dict[str, Any]:
        """As reports have it."""
        return {
            "psnr": round(self.psnr, 2) if math.isfinite(self.psnr) else None,
            "octaves": [octave.as_json() for octave in self.octaves],
            "places": [[round(value, 2) for value in row] for row in self.places.tolist()],
        }


def consistency(evidence: Evidence) -> Consistency:
    """Of the result with its input."""
    before, residual = luma(evidence.before), luma(evidence.residual)
    error = float(evidence.residual.square().mean())
    found, noise = [], evidence.damage.noise
    for number in range(len(OCTAVES) + 1):
        low = OCTAVES[number - 1] if number else 0.0
        high = OCTAVES[number] if number < len(OCTAVES) else None
        bands = [_between(plane, low, high) for plane in (before, residual)]
        found.append(
            Octave(
                pixels=(2 * low if low else 2.0, None if high is None else 4 * high),
                input=float(bands[0].std()),
                unexplained=float(bands[1].square().mean().sqrt()),
                noise=noise * _share_of_white_noise(low, high),
            )
        )
    return Consistency(
        psnr=10 * math.log10(255**2 / error) if error else math.inf,
        octaves=tuple(found),
        places=_places(before, residual, noise),
    )


def _between(plane: Tensor, low: float, high: float | None) -> Tensor:
    return gaussian(plane, low) - (plane.mean() if high is None else gaussian(plane, high))


def _places(before: Tensor, residual: Tensor, noise: float) -> Tensor:
    rows, columns = (min(side, PLACES) for side in before.shape[-2:])
    pool = torch.nn.AdaptiveAvgPool2d((rows, columns))
    variance = (pool(before.square()) - pool(before).square())[0]
    unexplained = (pool(residual.square())[0] - noise**2).clamp(min=0)
    floor = max(noise**2, 1.0)  # a level is the least that 8 bits tell
    return (1 - unexplained / (variance - noise**2).clamp(min=floor)).clamp(0, 1)


def _explained(given: float, left: float, noise: float) -> float:
    own = max(given - noise, 1e-6)
    return min(1.0, max(0.0, 1 - max(left - noise, 0.0) / own))


def _share_of_white_noise(low: float, high: float | None) -> float:
    """Deviation, of white noise of deviation 1, of what lies between two Gaussians (none: all; of no size: itself)."""

    def overlap(first: float, second: float) -> float:
        spread = first**2 + second**2
        return 1 / (2 * math.pi * spread) if spread > 1 / (2 * math.pi) else 1.0

    if high is None:
        return math.sqrt(overlap(low, low))
    return math.sqrt(max(0.0, overlap(low, low) + overlap(high, high) - 2 * overlap(low, high)))
