"""All recipes by name: what training draws from, and the fixed degradations that are measured.

degradation = draw(np.random.default_rng(seed), "real")
degraded = apply(degradation, clean)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np

from supir.degradation.process import Degradation, Step, step
from supir.degradation.real import Damages
from supir.degradation.second_order import EVERYDAY, LIGHT, Recipe
from supir.errors import OptionError


class Drawable(Protocol):
    """What a recipe must do."""

    def draw(self, rng: np.random.Generator) -> Degradation:
        """Draw every value of a degradation."""
        ...


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A fixed degradation: blur, antialiased bicubic reduction, noise, JPEG. Only the noise's seed is drawn."""

    scale: float
    """How many times smaller a side becomes."""
    blur: float = 0.0
    """Standard deviation in pixels of a Gaussian before the reduction."""
    noise: float = 0.0
    """Standard deviation, of 255, of Gaussian noise after it, independent in each channel."""
    jpeg: int | None = None
    """Quality of the file, where there is one."""

    def draw(self, rng: np.random.Generator) -> Degradation:
        """The degradation, with a new seed for its noise."""
        steps: list[Step] = []
        if self.blur:
            size = 2 * int(np.ceil(4 * self.blur)) + 1
            round_blur = {"sigma_x": self.blur, "sigma_y": self.blur, "angle": 0.0, "shape": "gaussian", "beta": 1.0}
            steps.append(step("blur", size=size, **round_blur))
        steps.append(step("reduce", fraction=1 / self.scale))
        if self.noise:
            steps.append(step("gaussian_noise", strength=self.noise, grey=False, seed=int(rng.integers(2**31))))
        if self.jpeg is not None:
            steps.append(step("jpeg", quality=self.jpeg))
        return Degradation(tuple(steps))


BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "sr4": Benchmark(scale=4),
        "sr8": Benchmark(scale=8),
        "blur2_sr4": Benchmark(scale=4, blur=2.0),
        "sr4_noise40": Benchmark(scale=4, noise=40.0),
        "blur2_sr4_noise20_jpeg50": Benchmark(scale=4, blur=2.0, noise=20.0, jpeg=50),
    }
)
"""The synthetic degradations of SUPIR's Table 1 (arXiv 2401.13627)."""

RECIPES: Mapping[str, Drawable] = MappingProxyType(
    {"default": Recipe(), "light": LIGHT, "everyday": EVERYDAY, "real": Damages(), **BENCHMARKS}
)
"""``default`` is the process of the paper's Q model, ``light`` that of F; ``everyday`` is one slight reduction;
``real`` is what photographs suffer beyond it; the others are fixed."""


VERSIONS: Mapping[str, int] = MappingProxyType({"default": 2, "light": 2})
"""Of what a recipe draws from a seed; 1 where none is named. Stored degradations replay whatever the version.

2: the shares of kernels, exponents, cut-offs and the second resize as Real-ESRGAN's authors published them.
"""


ABOUT: Mapping[str, str] = MappingProxyType(
    {
        "default": "second-order process of blur, resizing, noise and JPEG, as for the paper's Q model; drawn anew",
        "light": "the same but slight, as for its F model; drawn anew",
        "everyday": "one slight reduction, blur, noise and JPEG; drawn anew",
        "real": "what photographs suffer beyond these: lens, sensor, print, video, messengers; drawn anew",
        "sr4": "a fourth of the size",
        "sr8": "an eighth of the size",
        "blur2_sr4": "Gaussian blur of 2 pixels, a fourth of the size",
        "sr4_noise40": "a fourth of the size, Gaussian noise of 40 grey levels",
        "blur2_sr4_noise20_jpeg50": "blur of 2 pixels, a fourth of the size, noise of 20, JPEG of quality 50",
    }
)
"""Every recipe in a few words."""


def draw(rng: np.random.Generator, name: str) -> Degradation:
    """Draw a degradation from the recipe of this name.

    Raises:
        OptionError: there is no such recipe.
    """
    if name not in RECIPES:
        raise OptionError(f"unknown degradation recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name].draw(rng)
