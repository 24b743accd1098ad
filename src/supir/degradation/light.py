"""Light: the display curve, the counting of photons, and haze.

Lens, air and sensor work on light, in which twice the value is twice the photons; picture files hold its 2.2th root,
near enough to sRGB's curve for damaging photographs.
"""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np

from supir.degradation.ops import Picture, clip
from supir.degradation.values import Seed, Share
from supir.options.fields import Range

GAMMA = 2.2


def to_light(picture: Picture) -> Picture:
    """Display values in [0, 1] to light in [0, 1]."""
    return np.power(picture, np.float32(GAMMA))


def to_display(light: Picture) -> Picture:
    """Light to display values; what is below 0 or above 1 is clipped."""
    return np.power(clip(light), np.float32(1 / GAMMA))


def smooth_field(rng: np.random.Generator, height: int, width: int, cells: int) -> Picture:
    """Clouds (height, width) around 0 with a deviation near 1: ``cells`` random values along the longer side."""
    longest = max(height, width)
    rows, columns = max(2, round(cells * height / longest)), max(2, round(cells * width / longest))
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def haze(
    picture: Picture,
    thickness: Annotated[float, Range(0.0, 4.0)],
    airlight: Share,
    warmth: Annotated[float, Range(-0.3, 0.3)],
    slope: Share,
    patchiness: Share,
    seed: Seed,
) -> Picture:
    """Mist between camera and scene: ``J t + A (1 - t)`` in light, ``t = exp(-thickness * depth)`` (Koschmieder).

    Depth is not known, so it falls from 1 at the top of the picture to ``1 - slope`` at the bottom, with clouds of
    ``patchiness``. ``airlight`` is the grey of the mist as displayed, ``warmth`` what red has more and blue less.
    """
    height, width = picture.shape[:2]
    depth = 1 - slope * np.linspace(0, 1, height, dtype=np.float32)[:, None]
    if patchiness > 0:
        clouds = smooth_field(np.random.default_rng(seed), height, width, 4)
        depth = depth * np.exp(np.float32(0.5 * patchiness) * clouds)
    passed = np.exp(np.float32(-thickness) * np.broadcast_to(depth, (height, width)))[..., None]
    colour = np.clip(np.array([airlight + warmth, airlight, airlight - warmth], np.float32), 0, 1)
    light = to_light(picture)
    mist = to_light(colour)
    light -= mist
    light *= passed
    light += mist
    return to_display(light)
