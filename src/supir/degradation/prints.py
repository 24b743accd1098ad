"""What happens to prints and negatives before they are scanned: faded dyes, grain, scratches, creases, dust;
and what a press makes of a tone: printed dots."""

from __future__ import annotations

from typing import Annotated, Literal

import cv2
import numpy as np
import numpy.typing as npt

from supir.degradation.ops import Angle, Picture, Seed, Share, clip, mean_colour, smooth_field, to_display, to_light
from supir.options.fields import Range

DENSEST = 2.2
"""Density of a print's black: it reflects 10**-2.2 of the light."""
_FINE = 4
"""Bits of fraction in the coordinates of lines."""
_PAPER = np.array([0.93, 0.91, 0.87], np.float32)
Mask = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]


def fade(picture: Picture, cyan_loss: Share, magenta_loss: Share, yellow_loss: Share, stain: Share) -> Picture:
    """A colour print that has lost shares of its dyes, and whose white has turned yellow.

    In densities: each channel is held back by one dye (red by cyan, green by magenta, blue by yellow), of which the
    share ``loss`` is gone; ``stain`` is the density added to blue, a third of it to green. Prints of the seventies lost
    cyan first and turned red; display in the sun takes yellow and magenta, and turns them blue-green.
    """
    light = np.maximum(to_light(picture), np.float32(10**-DENSEST))
    kept = np.array([1 - cyan_loss, 1 - magenta_loss, 1 - yellow_loss], np.float32)
    # 10 ** -(kept * density) with density = -log10(light) is a power of the light.
    faded = np.power(light, kept, dtype=np.float32)
    faded *= np.float32(10) ** (-stain * np.array([0.05, 0.33, 1.0], np.float32))
    return to_display(faded)


def grain(
    picture: Picture,
    strength: Annotated[float, Range(0.0, 100.0)],
    size: Annotated[float, Range(0.3, 8.0)],
    seed: Seed,
) -> Picture:
    """Grain of film: grey clumps of ``size`` pixels, deviation ``strength`` / 255 in mid-tones, less at both ends."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(picture.shape[:2], dtype=np.float32)
    if size > 0.4:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), size / 2, borderType=cv2.BORDER_REFLECT_101), np.float32)
    noise *= np.float32(strength / 255 / max(float(noise.std()), 1e-6))
    tone = mean_colour(picture)
    noise *= np.sqrt(np.maximum(4 * tone * (1 - tone), 0)) * np.float32(0.8) + np.float32(0.2)
    return clip(picture + noise[..., None])


def scratches(
    picture: Picture,
    count: Annotated[int, Range(1, 200)],
    length: Annotated[float, Range(0.02, 2.0)],
    width: Annotated[float, Range(0.3, 8.0)],
    opacity: Share,
    bright: Share,
    seed: Seed,
) -> Picture:
    """Fine lines in the surface, mostly in one direction, broken where the scratching thing lifted.

    ``length`` as a share of the picture's longer side, ``width`` in pixels, the share ``bright`` of them white (the
    layer is gone) and the others dark (dirt in them, or scratches of a negative).
    """
    rng = np.random.default_rng(seed)
    height, wide = picture.shape[:2]
    direction = rng.uniform(0, np.pi)
    masks = {True: np.zeros((height, wide), np.uint8), False: np.zeros((height, wide), np.uint8)}
    for _ in range(count):
        angle = direction + rng.normal(0, 0.25)
        span = length * max(height, wide) * rng.uniform(0.3, 1.0)
        points = _wandering(rng, (rng.uniform(0, wide), rng.uniform(0, height)), angle, span, bend=0.03)
        thickness, light = width * rng.uniform(0.5, 1.2), bool(rng.random() < bright)
        level = 255 * min(thickness, 1.0) * rng.uniform(0.5, 1.0)
        for start in range(0, len(points) - 1, 4):
            if rng.random() < 0.8:
                _line(masks[light], points[start : start + 5], level * rng.uniform(0.5, 1.0), thickness)
    damaged = _paint(picture, masks[True], opacity, np.array([0.96, 0.95, 0.92], np.float32))
    return _paint(damaged, masks[False], opacity, np.array([0.12, 0.10, 0.09], np.float32))


def creases(
    picture: Picture, count: Annotated[int, Range(1, 20)], width: Annotated[float, Range(0.5, 24.0)], seed: Seed
) -> Picture:
    """Folds across the print: a fine crack, flakes of about ``width`` pixels broken from it, a lit and a dark flank."""
    rng = np.random.default_rng(seed)
    height, wide = picture.shape[:2]
    damaged = picture
    for _ in range(count):
        angle, span = rng.uniform(0, np.pi), 1.6 * float(np.hypot(height, wide))
        middle = (rng.uniform(0.1, 0.9) * wide, rng.uniform(0.1, 0.9) * height)
        start = (middle[0] - np.cos(angle) * span / 2, middle[1] - np.sin(angle) * span / 2)
        points = _wandering(rng, start, angle, span, bend=0.01, jitter=0.1 * width)
        crack, flakes = np.zeros((height, wide), np.uint8), np.zeros((height, wide), np.uint8)
        _line(crack, points, 255, 0.3 * width)
        # Flakes come in runs, where the layer held badly.
        loose = np.convolve(rng.normal(0, 1, len(points)), np.ones(7) / 7**0.5, "same") > 0.3
        for at in points[loose]:
            for _ in range(2):
                _speck(rng, flakes, at + rng.normal(0, (2.0, 0.25 * width)) @ _turned(angle), 0.6 * width, 255)
        shaded = clip(damaged * (1 + _relief(crack, angle, width))[..., None])
        worn = 0.65 + 0.4 * smooth_field(rng, height, wide, max(4, max(height, wide) // 16))
        damaged = _paint(shaded, crack * np.clip(worn, 0, 1), 0.9, _PAPER)
        damaged = _paint(damaged, flakes, 0.9, _PAPER)
    return damaged


def _relief(crack: Mask, angle: float, width: float) -> Picture:
    """What the flanks of a fold gain in light: one turns to the lamp and the other away from it."""
    far = np.asarray(cv2.GaussianBlur(crack.astype(np.float32), (0, 0), 2 * width + 1), np.float32)
    far *= 1 / max(float(far.max()), 1.0)
    across = 1.5 * width * _turned(angle)[1]
    size = (crack.shape[1], crack.shape[0])
    sides = [
        np.asarray(cv2.warpAffine(far, np.array([[1, 0, x], [0, 1, y]]), size, borderMode=cv2.BORDER_REPLICATE))
        for x, y in (across, -across)
    ]
    return np.asarray(0.2 * (sides[0] - sides[1]), np.float32)


def _turned(angle: float) -> Points:
    """Unit vectors along and across a direction, as rows."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def dust(
    picture: Picture,
    count: Annotated[int, Range(1, 2000)],
    size: Annotated[float, Range(0.3, 16.0)],
    hairs: Share,
    bright: Share,
    seed: Seed,
) -> Picture:
    """Specks of about ``size`` pixels; the share ``hairs`` are curled fibres, and the share ``bright`` is white."""
    rng = np.random.default_rng(seed)
    height, width = picture.shape[:2]
    masks = {True: np.zeros((height, width), np.uint8), False: np.zeros((height, width), np.uint8)}
    for _ in range(count):
        mask = masks[bool(rng.random() < bright)]
        at = np.array([rng.uniform(0, width), rng.uniform(0, height)])
        level = 255 * rng.uniform(0.5, 1.0)
        if rng.random() < hairs:
            _line(mask, _curl(rng, at, 8 * size), level * 0.7, max(0.35 * size, 0.6))
        else:
            _speck(rng, mask, at, size, level)
    damaged = _paint(picture, masks[True], 0.95, np.array([0.95, 0.95, 0.93], np.float32))
    return _paint(damaged, masks[False], 0.85, np.array([0.10, 0.09, 0.08], np.float32))


def _wandering(
    rng: np.random.Generator, start: tuple[float, float], angle: float, span: float, bend: float, jitter: float = 0.0
) -> Points:
    """Points (n, 2) along a nearly straight line, about one every six pixels."""
    steps = max(8, int(span / 6))
    turn = angle + np.cumsum(rng.normal(0, bend, steps)) * (6 / max(span, 6.0)) ** 0.25
    points = np.array(start) + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1) * (span / steps), 0)
    return np.asarray(points + rng.normal(0, 1, points.shape) * jitter, np.float64)


def _speck(rng: np.random.Generator, mask: Mask, at: Points, size: float, level: float) -> None:
    """An irregular spot, mostly smaller and seldom much larger than ``size`` pixels."""
    grown = size * float(np.exp(rng.normal(-0.4, 0.6)))
    turns = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    reach = grown / 2 * np.exp(rng.normal(0, 0.35, 8))
    outline = at + np.stack([np.cos(turns) * reach * rng.uniform(0.6, 1.4), np.sin(turns) * reach], 1)
    whole = np.round(outline * 2**_FINE).astype(np.int32)
    cv2.fillPoly(mask, [whole], level * min(grown, 1.0), cv2.LINE_AA, _FINE)


def _curl(rng: np.random.Generator, at: Points, span: float) -> Points:
    """Points (12, 2) of a fibre: it bends at a rate that changes slowly."""
    turn = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.25) + rng.normal(0, 0.2, 12))
    return np.asarray(at + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1) * (span / 12), 0), np.float64)


def _line(
    mask: Mask,
    points: Points,
    level: float,
    width: float,
) -> None:
    whole = np.round(points * 2**_FINE).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(mask, [whole], False, float(level), max(1, round(width)), cv2.LINE_AA, _FINE)


def _paint(picture: Picture, mask: Mask | Picture, opacity: float, colour: Picture) -> Picture:
    """The picture under a colour where the mask (0 to 255) says."""
    if not mask.any():
        return picture
    share = (mask.astype(np.float32) * np.float32(opacity / 255))[..., None]
    return clip(picture + share * (colour - picture))


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
