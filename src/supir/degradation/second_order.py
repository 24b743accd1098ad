"""Real-ESRGAN's second-order degradation (arXiv 2107.10833, section 3), drawn first and applied after.

The shares and ranges are those that its authors published with x4plus (`options/train_realesrgan_x4plus.yml`), not all
of which the article states: the six kernels' shares, exponents of which half lie below 1, sinc cut-offs that reach
lower with larger kernels, and a second resize that is counted from the final size.

As in SUPIR's paper (section 4.1) the degraded picture is brought back to the size of the clean one, which ``apply``
does. What a drawing is, and how it is replayed, is in ``process``; the names of all recipes are in ``recipes``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from supir.degradation.process import Degradation, Step, step

_INTERPOLATIONS = ("area", "bilinear", "bicubic")
_KERNELS = {
    ("gaussian", True): 0.45,
    ("gaussian", False): 0.25,
    ("generalized", True): 0.12,
    ("generalized", False): 0.03,
    ("plateau", True): 0.12,
    ("plateau", False): 0.03,
}
"""Shares of the blur kernels by shape and whether they are isotropic."""
_EXPONENTS = {"gaussian": (1.0, 1.0), "generalized": (0.5, 4.0), "plateau": (1.0, 2.0)}


@dataclass(frozen=True, kw_only=True)
class Round:
    """Ranges of one round of blur, resize, noise and compression; names and defaults as Real-ESRGAN's x4plus."""

    blur_probability: float = 1.0
    sinc_probability: float = 0.1
    blur_sigma: tuple[float, float] = (0.2, 3.0)
    resize_up_down_keep: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize_range: tuple[float, float] = (0.15, 1.5)
    noise_probability: float = 1.0
    gaussian_probability: float = 0.5
    gaussian_strength: tuple[float, float] = (1.0, 30.0)
    poisson_strength: tuple[float, float] = (0.05, 3.0)
    grey_probability: float = 0.4
    jpeg_probability: float = 1.0
    jpeg_quality: tuple[int, int] = (30, 95)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole process."""

    rounds: tuple[Round, ...] = (
        Round(),
        Round(
            blur_probability=0.8,
            blur_sigma=(0.2, 1.5),
            resize_up_down_keep=(0.3, 0.4, 0.3),
            resize_range=(0.3, 1.2),
            gaussian_strength=(1.0, 25.0),
            poisson_strength=(0.05, 2.5),
        ),
    )
    scale: tuple[float, float] = (4.0, 4.0)
    """The reduction that the rounds end in."""
    final_sinc_probability: float = 0.8
    everyday_probability: float = 0.0
    """Share of ``everyday`` degradations instead of rounds."""

    def draw(self, rng: np.random.Generator) -> Degradation:
        """Draw every value of a degradation."""
        if rng.random() < self.everyday_probability:
            return _draw_everyday(rng)
        steps: list[Step] = []
        final_fraction = 1 / _between(rng, self.scale)
        for number, ranges in enumerate(self.rounds):
            last = number == len(self.rounds) - 1
            steps += _draw_round(rng, ranges, final_fraction if number else 1.0, compress=not last)
        end = [step("resize", fraction=final_fraction, interpolation=_choose(rng, _INTERPOLATIONS))]
        if rng.random() < self.final_sinc_probability:
            end.append(step("sinc", size=_odd_size(rng), cutoff=_between(rng, (np.pi / 3, np.pi))))
        # Real-ESRGAN compresses before or after the last resize and sinc, each half of the time.
        final = self.rounds[-1]
        if rng.random() < final.jpeg_probability:
            end.insert(0 if rng.random() < 0.5 else len(end), _draw_jpeg(rng, final.jpeg_quality))
        return Degradation(tuple(steps + end))


LIGHT = Recipe(
    rounds=(
        Round(
            blur_probability=0.6,
            sinc_probability=0.05,
            blur_sigma=(0.2, 1.6),
            resize_up_down_keep=(0.1, 0.4, 0.5),
            resize_range=(0.5, 1.2),
            noise_probability=0.6,
            gaussian_strength=(0.5, 10.0),
            poisson_strength=(0.05, 1.0),
            jpeg_probability=0.7,
            jpeg_quality=(50, 95),
        ),
    ),
    scale=(1.0, 4.0),
    final_sinc_probability=0.2,
    everyday_probability=0.4,
)
"""Photographs as people mostly have them: small, a little soft, a little compressed."""

EVERYDAY = Recipe(everyday_probability=1.0)
"""One order: perhaps a slight blur, an antialiased ``shrink`` by 1 to 8, perhaps noise, mostly a JPEG."""


def _draw_everyday(rng: np.random.Generator) -> Degradation:
    scale = float(rng.choice([1.0, 2.0, 4.0, 0.0], p=[0.15, 0.2, 0.15, 0.5]))
    scale = scale or math.exp(_between(rng, (math.log(1.2), math.log(8.0))))
    steps = []
    if rng.random() < 0.5:
        sigma = scale * _between(rng, (0.2, 1.0))
        size = 2 * int(np.ceil(3 * sigma)) + 1
        steps.append(step("blur", size=size, sigma_x=sigma, sigma_y=sigma, angle=0.0, shape="gaussian", beta=1.0))
    if scale > 1:
        soft = rng.random() < 0.6
        way: dict[str, str] = {} if soft else {"interpolation": "area"}
        steps.append(step("shrink" if soft else "resize", fraction=1 / scale, **way))
    if rng.random() < 0.4:
        gaussian, strength = bool(rng.random() < 0.5), math.exp(_between(rng, (0.0, math.log(45.0))))
        values = {"strength": strength if gaussian else strength / 8, "grey": bool(rng.random() < 0.4)}
        steps.append(step("gaussian_noise" if gaussian else "poisson_noise", **values, seed=int(rng.integers(2**31))))
    if rng.random() < 0.6 or not steps:
        steps.append(_draw_jpeg(rng, (40, 95)))
    return Degradation(tuple(steps))


def _draw_round(rng: np.random.Generator, ranges: Round, base: float, compress: bool) -> list[Step]:
    """Steps of one round, which resizes to a multiple of ``base``, a fraction of the clean size."""
    steps: list[Step] = []
    if rng.random() < ranges.blur_probability:
        if rng.random() < ranges.sinc_probability:
            size = _odd_size(rng)
            steps.append(step("sinc", size=size, cutoff=_between(rng, (np.pi / (3 if size < 13 else 5), np.pi))))
        else:
            steps.append(_draw_blur(rng, ranges.blur_sigma))
    way = rng.choice(3, p=ranges.resize_up_down_keep)
    factor = (_between(rng, (1.0, ranges.resize_range[1])), _between(rng, (ranges.resize_range[0], 1.0)), 1.0)[way]
    if base * factor != 1.0:
        steps.append(step("resize", fraction=base * factor, interpolation=_choose(rng, _INTERPOLATIONS)))
    if rng.random() < ranges.noise_probability:
        gaussian = rng.random() < ranges.gaussian_probability
        strength = _between(rng, ranges.gaussian_strength if gaussian else ranges.poisson_strength)
        grey, seed = bool(rng.random() < ranges.grey_probability), int(rng.integers(2**31))
        steps.append(step("gaussian_noise" if gaussian else "poisson_noise", strength=strength, grey=grey, seed=seed))
    if compress and rng.random() < ranges.jpeg_probability:
        steps.append(_draw_jpeg(rng, ranges.jpeg_quality))
    return steps


def _draw_blur(rng: np.random.Generator, sigma: tuple[float, float]) -> Step:
    shape, isotropic = list(_KERNELS)[rng.choice(len(_KERNELS), p=list(_KERNELS.values()))]
    first = _between(rng, sigma)
    second, angle = (first, 0.0) if isotropic else (_between(rng, sigma), _between(rng, (-np.pi, np.pi)))
    lowest, highest = _EXPONENTS[shape]
    beta = _between(rng, (lowest, 1.0) if rng.random() < 0.5 else (1.0, highest))
    return step("blur", size=_odd_size(rng), sigma_x=first, sigma_y=second, angle=angle, shape=shape, beta=beta)


def _draw_jpeg(rng: np.random.Generator, quality: tuple[int, int]) -> Step:
    return step("jpeg", quality=int(rng.integers(quality[0], quality[1] + 1)))


def _between(rng: np.random.Generator, limits: Sequence[float] | npt.NDArray[np.float64]) -> float:
    return float(rng.uniform(*limits))


def _choose(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return str(rng.choice(names))


def _odd_size(rng: np.random.Generator) -> int:
    return 7 + 2 * int(rng.integers(8))
