"""What the sensor and the camera's own software do: shot and read noise under a Bayer mosaic, low light, smoothing."""

from __future__ import annotations

from typing import Annotated, Literal

import cv2
import numpy as np

from supir.degradation.ops import Picture, Seed, Share, clip, mean_colour, photons_counted, to_display, to_light
from supir.options.fields import Range

Photons = Annotated[float, Range(10.0, 100_000.0)]
ReadNoise = Annotated[float, Range(0.0, 100.0)]
Gain = Annotated[float, Range(0.5, 4.0)]
Demosaic = Literal["bilinear", "edge_aware"]

_DEMOSAIC = {"bilinear": cv2.COLOR_BayerRGGB2RGB, "edge_aware": cv2.COLOR_BayerRGGB2RGB_EA}
_BLACK, _WHITE = 2048, 49152
"""Levels of no light and of full light in the 16-bit mosaic; the room beside them keeps noise from being clipped."""


def sensor(
    picture: Picture,
    photons: Photons,
    read_noise: ReadNoise,
    red_gain: Gain,
    blue_gain: Gain,
    crosstalk: Annotated[float, Range(0.0, 0.4)],
    demosaic: Demosaic,
    seed: Seed,
) -> Picture:
    """A photograph as a noisy colour-filter sensor takes it; the noise is demosaiced, so neighbours share it.

    ``photons`` that fill a green pixel (a few hundred at the highest ISO, tens of thousands at the lowest);
    ``read_noise`` in electrons; the white balance's gains of red and blue, which amplify their noise; ``crosstalk``
    of the colour filters, whose removal amplifies the noise of colours (model: EMVA 1288; Brooks et al., CVPR 2019).
    """
    light = to_light(picture)
    return to_display(_exposed(light, photons, read_noise, 0.0, (red_gain, blue_gain), crosstalk, demosaic, seed))


def low_light(
    picture: Picture,
    exposure: Annotated[float, Range(0.005, 1.0)],
    push: Annotated[float, Range(1.0, 64.0)],
    photons: Photons,
    read_noise: ReadNoise,
    banding: Annotated[float, Range(0.0, 50.0)],
    red_gain: Gain,
    blue_gain: Gain,
    crosstalk: Annotated[float, Range(0.0, 0.4)],
    seed: Seed,
) -> Picture:
    """A dark scene: ``exposure`` times the light, taken by ``sensor``, then brightened ``push`` times.

    ``banding`` is the read noise of whole rows, in electrons. Light that stays below black is lost, as in the file of a
    camera.
    """
    light = to_light(picture) * np.float32(exposure)
    taken = _exposed(light, photons, read_noise, banding, (red_gain, blue_gain), crosstalk, "bilinear", seed)
    return to_display(taken * np.float32(push))


def in_camera_denoise(picture: Picture, luma: Share, chroma: Share, radius: Annotated[int, Range(1, 16)]) -> Picture:
    """Smoothing by a phone: texture is painted over and edges stay, colours run.

    ``luma`` 1 flattens what varies by a tenth of the range within ``radius`` pixels (self-guided filter, He et al.,
    ECCV 2010); ``chroma`` is the share of colour taken from a window of three times the radius.
    """
    coded = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb), np.float32)
    grey, window = np.ascontiguousarray(coded[..., 0]), (2 * radius + 1, 2 * radius + 1)
    if luma > 0:
        mean = cv2.blur(grey, window, borderType=cv2.BORDER_REFLECT_101)
        spread = np.maximum(cv2.blur(grey * grey, window, borderType=cv2.BORDER_REFLECT_101) - mean * mean, 0)
        kept = spread / (spread + np.float32((0.1 * luma) ** 2))
        offset = cv2.blur(mean * (1 - kept), window, borderType=cv2.BORDER_REFLECT_101)
        coded[..., 0] = cv2.blur(kept, window, borderType=cv2.BORDER_REFLECT_101) * grey + offset
    if chroma > 0:
        wide = (6 * radius + 1, 6 * radius + 1)
        colour = np.ascontiguousarray(coded[..., 1:])
        spread_out = np.asarray(cv2.blur(colour, wide, borderType=cv2.BORDER_REFLECT_101))
        coded[..., 1:] += np.float32(chroma) * (spread_out - colour)
    return clip(cv2.cvtColor(coded, cv2.COLOR_YCrCb2RGB))


def _exposed(
    light: Picture,
    photons: float,
    read_noise: float,
    banding: float,
    gains: tuple[float, float],
    crosstalk: float,
    demosaic: Demosaic,
    seed: int,
) -> Picture:
    """Light through filters, mosaic, noise, demosaicing, white balance and colour matrix; may leave [0, 1]."""
    rng = np.random.default_rng(seed)
    grey = mean_colour(light)
    height, width = light.shape[:2]
    mosaic = np.empty((height, width), np.float32)
    for channel, gain, sites in ((0, gains[0], ((0, 0),)), (1, 1.0, ((0, 1), (1, 0))), (2, gains[1], ((1, 1),))):
        for top, left in sites:
            site = (slice(top, None, 2), slice(left, None, 2))
            mixed = (1 - crosstalk) * light[..., channel][site] + crosstalk * grey[site]
            mosaic[site] = mixed / np.float32(gain)
    electrons = photons_counted(rng, mosaic * np.float32(photons))
    if read_noise > 0:
        electrons += np.float32(read_noise) * rng.standard_normal((height, width), dtype=np.float32)
    if banding > 0:
        electrons += np.float32(banding) * rng.standard_normal((height, 1), dtype=np.float32)
    levels = np.clip(electrons * np.float32((_WHITE - _BLACK) / photons) + (_BLACK + 0.5), 0, 65535).astype(np.uint16)
    taken = np.asarray(cv2.cvtColor(levels, _DEMOSAIC[demosaic]), np.float32)
    taken = (taken - _BLACK) * np.float32(1 / (_WHITE - _BLACK))
    taken *= np.array([gains[0], 1.0, gains[1]], np.float32)
    # The inverse of mixing each channel with the mean of all three.
    taken -= np.float32(crosstalk) * mean_colour(taken)[..., None]
    taken *= np.float32(1 / (1 - crosstalk))
    return taken
