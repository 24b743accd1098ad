"""Pictures from newspapers, magazines and posters: the tone is made of printed dots."""

from __future__ import annotations

from typing import Annotated, Literal

import cv2
import numpy as np

from supir.degradation.light import to_display, to_light
from supir.degradation.ops import Picture
from supir.degradation.values import Angle, Share
from supir.options.fields import Range

_SCREENS = np.radians([15.0, 75.0, 0.0, 45.0])
"""The usual angles of cyan, magenta, yellow and black."""
_INKS = np.array([[0.05, 0.62, 0.85], [0.75, 0.05, 0.42], [0.95, 0.84, 0.06], [0.03, 0.03, 0.03]], np.float32)
"""Light that each ink lets through, red, green and blue: those of offset printing, a little purer, since a printer's
separation corrects most of what inks absorb beside their own colour."""


def halftone(
    picture: Picture,
    period: Annotated[float, Range(2.0, 32.0)],
    angle: Angle,
    inks: Literal["black", "cmyk"],
    gain: Share,
    softness: Annotated[float, Range(0.0, 4.0)],
) -> Picture:
    """Printed dots ``period`` pixels apart, on screens turned by ``angle`` from the usual ones.

    The dots cover as much paper as the tone needs (Murray and Davies), plus the share ``gain`` by which ink spreads at
    half tone; ``softness`` is the deviation in pixels of the blur of ink and scanner. ``black`` is newsprint.
    """
    light = to_light(picture)
    # A dot is as sharp as the scan: its edge runs over about one pixel.
    slope = period / 2
    if inks == "black":
        grey = np.ascontiguousarray(light @ np.array([0.2126, 0.7152, 0.0722], np.float32))
        # A newspaper opens the shadows, for its paper is grey and its ink spreads.
        ink = _dots(1 - np.power(grey, np.float32(0.7)), period, angle + _SCREENS[3], gain, slope)
        printed = 0.75 * (1 - ink * np.float32(0.95))[..., None] * np.array([1.0, 0.97, 0.90], np.float32)
    else:
        printed = np.ones_like(light)
        cover = 1 - light
        black = cover.min(2) ** 4
        rest = np.maximum(1 - black, np.float32(1e-3))
        for number in range(4):
            share = black if number == 3 else (cover[..., number] - black) / rest
            ink = _dots(share, period, angle + _SCREENS[number], gain, slope)
            printed *= 1 - ink[..., None] * (1 - _INKS[number])
    if softness > 0:
        printed = np.asarray(cv2.GaussianBlur(printed, (0, 0), softness, borderType=cv2.BORDER_REFLECT_101), np.float32)
    return to_display(printed)


def _dots(cover: Picture, period: float, angle: float, gain: float, slope: float) -> Picture:
    """Ink (H, W) from 0 to 1 that covers the share ``cover`` of the paper."""
    height, width = cover.shape
    turn = 2 * np.pi / period
    along, across = np.arange(width) * turn, np.arange(height)[:, None] * turn
    cosine, sine = np.cos(angle), np.sin(angle)
    # Of a sum's cosine, only lines need be computed: cos(a + b) = cos a cos b - sin a sin b.
    first = np.cos(along * cosine) * np.cos(across * sine) - np.sin(along * cosine) * np.sin(across * sine)
    second = np.cos(along * -sine) * np.cos(across * cosine) - np.sin(along * -sine) * np.sin(across * cosine)
    screen = ((first + second) / 2).astype(np.float32)
    spread = np.clip(cover + gain * 4 * cover * (1 - cover) * np.float32(0.5), 0, 1)
    threshold = np.asarray(cv2.LUT((spread * 255 + 0.5).astype(np.uint8), _thresholds()), np.float32)
    return np.clip((screen - threshold) * np.float32(slope) + np.float32(0.5), 0, 1)


def _thresholds() -> Picture:
    """The height (256,) above which the screen lies over the share i / 255 of the paper."""
    phase = np.cos((np.arange(64) + 0.5) * (2 * np.pi / 64))
    heights = (phase[:, None] + phase) / 2
    found = np.quantile(heights, 1 - np.arange(256) / 255)
    # Beyond the ends there is no trace of a dot on white, nor of paper in black.
    found[0], found[-1] = 2.0, -2.0
    return np.asarray(found, np.float32)
