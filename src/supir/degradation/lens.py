"""What air, lens and a moving camera do, in light and not in display values: mist, streaks, discs, colour fringes."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np

from supir.degradation.ops import Angle, Picture, Seed, Share, clip, smooth_field, to_display, to_light
from supir.options.fields import Range

Highlights = Annotated[float, Range(1.0, 16.0)]


def motion_kernel(length: float, angle: float, shake: float, seed: int) -> Picture:
    """Path of the camera during the exposure, an odd square with unit sum whose centroid is its centre.

    ``length`` in pixels along ``angle``; ``shake`` 0 is a straight line of even speed, 1 a hand that wavers as much
    as it moves, as in the blur trajectories measured by Levin et al. (CVPR 2009).
    """
    rng = np.random.default_rng(seed)
    time = np.linspace(-0.5, 0.5, max(9, 2 * int(4 * length) + 1))
    phases, sizes = rng.uniform(0, 2 * np.pi, (3, 3)), rng.normal(0, 1, (3, 3))
    waves = (sizes[:, None] * np.sin(2 * np.pi * time[:, None] * np.array([0.6, 1.2, 2.1]) + phases[:, None])).sum(-1)
    along = length * (time + 0.12 * shake * waves[0])
    across = length * 0.25 * shake * waves[1]
    weights = np.exp(0.5 * shake * waves[2])
    weights /= weights.sum()
    x, y = np.cos(angle) * along - np.sin(angle) * across, np.sin(angle) * along + np.cos(angle) * across
    x, y = x - (weights * x).sum(), y - (weights * y).sum()
    radius = int(np.ceil(max(np.abs(x).max(), np.abs(y).max()))) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float64)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for right, below in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = weights * np.abs(1 - right - (x - left)) * np.abs(1 - below - (y - top))
        np.add.at(kernel, (top + below + radius, left + right + radius), share)
    return (kernel / kernel.sum()).astype(np.float32)


def aperture_kernel(radius: float, blades: int, angle: float) -> Picture:
    """Image of a point out of focus, an odd square with unit sum: a disc, or a polygon of 5 or more ``blades``."""
    half, fine = int(np.ceil(radius)) + 1, 5
    axis = (np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    x, y = np.meshgrid(axis, axis)
    reach = np.hypot(x, y)
    if blades >= 5:
        sector = 2 * np.pi / blades
        turn = np.mod(np.arctan2(y, x) - angle, sector) - sector / 2
        reach = reach * np.cos(turn) / np.cos(sector / 2) ** 0.5
    inside = (reach <= radius).astype(np.float64)
    kernel = inside.reshape(2 * half + 1, fine, 2 * half + 1, fine).mean((1, 3))
    return (kernel / kernel.sum()).astype(np.float32)


def motion_blur(
    picture: Picture,
    length: Annotated[float, Range(0.5, 128.0)],
    angle: Angle,
    shake: Share,
    highlights: Highlights,
    seed: Seed,
) -> Picture:
    """Blur of a camera moving while the shutter is open; see ``motion_kernel``.

    ``highlights``: how many times brighter than white the clipped lights really were; they draw the streaks.
    """
    return _blur_light(picture, motion_kernel(length, angle, shake, seed), highlights)


def defocus(
    picture: Picture,
    radius: Annotated[float, Range(0.5, 64.0)],
    blades: Annotated[int, Range(0, 12)],
    angle: Angle,
    highlights: Highlights,
) -> Picture:
    """Blur of a lens out of focus: a disc of ``radius`` pixels, or the polygon of its ``blades`` turned by ``angle``.

    ``highlights`` as for ``motion_blur``; they make the discs in the lights.
    """
    return _blur_light(picture, aperture_kernel(radius, blades, angle), highlights)


def fringes(
    picture: Picture,
    shift: Annotated[float, Range(-0.02, 0.02)],
    centre_x: Annotated[float, Range(-4.0, 5.0)],
    centre_y: Annotated[float, Range(-4.0, 5.0)],
) -> Picture:
    """Lateral chromatic aberration: red is larger and blue smaller by the share ``shift``.

    The centre of the lens in fractions of the picture; outside 0 to 1 where the picture is a crop.
    """
    height, width = picture.shape[:2]
    channels = []
    for channel, scale in enumerate((1 + shift, 1.0, 1 - shift)):
        plane = np.ascontiguousarray(picture[..., channel])
        if scale != 1:
            move = ((1 - scale) * centre_x * (width - 1), (1 - scale) * centre_y * (height - 1))
            matrix = np.array([[scale, 0, move[0]], [0, scale, move[1]]], np.float64)
            plane = np.asarray(
                cv2.warpAffine(plane, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
            )
        channels.append(plane)
    return clip(np.stack(channels, 2))


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


def _blur_light(picture: Picture, kernel: Picture, highlights: float) -> Picture:
    light = to_light(picture)
    if highlights > 1:
        light *= 1 + (highlights - 1) * np.clip(light * 5 - 4, 0, 1)
    return to_display(np.asarray(cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.float32))
