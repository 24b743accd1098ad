"""The plain operations of degradation: blur, resize, noise, compression; and what the others share.

Pictures are float32 (H, W, 3) RGB in [0, 1]; every operation returns a new one in that range. Chance enters only as a
seed, so an operation with its values is a function. Its signature is the whole description of the JSON that calls it:
``Annotated[float, Range(0, 1)]`` is a number from 0 to 1, a ``Literal`` one of some names, and a parameter with a
default may be left out.

Lens, air and sensor work on light, in which twice the value is twice the photons; picture files hold its 2.2th root,
near enough to sRGB's curve for damaging photographs.
"""

from __future__ import annotations

from typing import Annotated, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
from scipy import special

from supir.options.fields import Range

Picture = npt.NDArray[np.float32]
Share = Annotated[float, Range(0.0, 1.0)]
"""A part of the whole, 0 to 1."""
Angle = Annotated[float, Range(-2 * np.pi, 2 * np.pi)]
"""Radians; 0 points right, a quarter turn down."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""Where an operation's chance starts."""
KernelShape = Literal["gaussian", "generalized", "plateau"]
Interpolation = Literal["area", "bilinear", "bicubic"]
KernelSize = Annotated[int, Range(1, 255)]
Sigma = Annotated[float, Range(0.01, 64.0)]
Quality = Annotated[int, Range(1, 100)]

GAMMA = 2.2
_INTERPOLATION = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


def blur_kernel(size: int, sigma_x: float, sigma_y: float, angle: float, shape: KernelShape, beta: float) -> Picture:
    """Anisotropic kernel (size, size) with unit sum; sigmas in pixels, angle in radians (Real-ESRGAN, section 3.1).

    ``generalized`` is exp(-r**beta / 2), ``plateau`` is 1 / (1 + r**beta), with r the squared elliptic radius.
    """
    axis = np.arange(size, dtype=np.float32) - size // 2
    x, y = np.meshgrid(axis, axis)
    cosine, sine = np.cos(angle), np.sin(angle)
    radius = ((cosine * x + sine * y) / sigma_x) ** 2 + ((cosine * y - sine * x) / sigma_y) ** 2
    if shape == "plateau":
        kernel = 1 / (1 + radius**beta)
    else:
        kernel = np.exp(-0.5 * radius ** (beta if shape == "generalized" else 1.0))
    return cast(Picture, (kernel / kernel.sum()).astype(np.float32))


def sinc_kernel(size: int, cutoff: float) -> Picture:
    """Circular low-pass kernel (size, size): it rings; ``cutoff`` in radians a pixel (Real-ESRGAN, section 3.3)."""
    axis = np.arange(size, dtype=np.float64) - size // 2
    radius = np.hypot(*np.meshgrid(axis, axis))
    radius[size // 2, size // 2] = 1.0
    kernel = cutoff * special.j1(cutoff * radius) / (2 * np.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * np.pi)
    return cast(Picture, (kernel / kernel.sum()).astype(np.float32))


def blur(picture: Picture, kernel: Picture) -> Picture:
    """Convolution with reflected borders."""
    return clip(cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REFLECT_101))


def shaped_blur(
    picture: Picture,
    size: KernelSize,
    sigma_x: Sigma,
    sigma_y: Sigma,
    angle: Angle,
    shape: KernelShape,
    beta: Annotated[float, Range(0.1, 10.0)],
) -> Picture:
    """Blur with a ``blur_kernel`` of these values."""
    if shape == "gaussian" and sigma_x == sigma_y:
        # The same kernel is a product of two lines, much faster to apply.
        line = blur_kernel(size, sigma_x, sigma_y, 0.0, "gaussian", 1.0)[size // 2]
        line = line / line.sum()
        return clip(cv2.sepFilter2D(picture, -1, line, line, borderType=cv2.BORDER_REFLECT_101))
    return blur(picture, blur_kernel(size, sigma_x, sigma_y, angle, shape, beta))


def sinc(picture: Picture, size: KernelSize, cutoff: Annotated[float, Range(0.1, np.pi)]) -> Picture:
    """Ringing: a blur with a ``sinc_kernel`` of these values."""
    return blur(picture, sinc_kernel(size, cutoff))


def resize(picture: Picture, height: int, width: int, interpolation: Interpolation) -> Picture:
    """OpenCV's resize; only ``area`` has an antialiasing window when shrinking, as in Real-ESRGAN's own process."""
    return clip(cv2.resize(picture, (width, height), interpolation=_INTERPOLATION[interpolation]))


def shrink(picture: Picture, height: int, width: int) -> Picture:
    """Antialiased reduction as photo software does it: a slight blur, then bicubic."""
    ratio = picture.shape[0] / height
    if ratio > 1:
        sigma = 0.45 * np.sqrt(max(ratio**2 - 1, 0))
        picture = cv2.GaussianBlur(picture, (0, 0), float(sigma) + 1e-3, borderType=cv2.BORDER_REFLECT_101)
    return clip(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC))


def reduce(picture: Picture, height: int, width: int) -> Picture:
    """Bicubic with its window widened to the reduction, as Pillow and MATLAB reduce and benchmarks ask for."""
    rows, columns = _bicubic_weights(picture.shape[0], height), _bicubic_weights(picture.shape[1], width)
    narrow = (rows @ picture.reshape(picture.shape[0], -1)).reshape(height, picture.shape[1], 3)
    return clip(np.matmul(columns, narrow))


def _bicubic_weights(size: int, new_size: int) -> Picture:
    """Weights (new_size, size) of Keys' cubic with a = -1/2; each row has unit sum."""
    ratio = size / new_size
    centre = (np.arange(new_size) + 0.5) * ratio - 0.5
    distance = np.abs(np.arange(size) - centre[:, None]) / max(ratio, 1.0)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return cast(Picture, (weights / weights.sum(1, keepdims=True)).astype(np.float32))


def gaussian_noise(picture: Picture, strength: Annotated[float, Range(0.0, 255.0)], grey: bool, seed: Seed) -> Picture:
    """Additive noise with a standard deviation of ``strength`` / 255, the same for all channels when ``grey``."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((*picture.shape[:2], 1 if grey else 3), dtype=np.float32)
    noise *= np.float32(strength / 255)
    return clip(picture + noise)


def poisson_noise(picture: Picture, strength: Annotated[float, Range(0.0, 50.0)], grey: bool, seed: Seed) -> Picture:
    """Signal-dependent noise of a 255-photon exposure, its deviation times ``strength``."""
    rng = np.random.default_rng(seed)
    signal = mean_colour(picture)[..., None] if grey else picture
    noise = photons_counted(rng, signal * 255)
    noise *= np.float32(1 / 255)
    noise -= signal
    noise *= np.float32(strength)
    return clip(picture + noise)


def photons_counted(rng: np.random.Generator, expected: Picture) -> Picture:
    """Counts drawn around ``expected`` ones, with the mean, variance and skewness of Poisson's distribution.

    Cornish and Fisher's expansion of a normal draw; real-valued, a fourth of the time of exact counts, and as good
    wherever more than a photon is expected.
    """
    normal = rng.standard_normal(expected.shape, dtype=np.float32)
    counts = np.sqrt(np.maximum(expected, 0))
    counts *= normal
    counts += expected
    normal *= normal
    normal -= 1
    normal *= np.float32(1 / 6)
    counts += np.where(expected > 0, normal, 0)
    return cast(Picture, counts)


def jpeg(picture: Picture, quality: Quality) -> Picture:
    """JPEG compression and decompression (4:2:0), ``quality`` 1 to 100."""
    return coded(picture, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, int(quality)])


def coded(picture: Picture, suffix: str, settings: list[int]) -> Picture:
    """The picture through one of OpenCV's file codecs and back, in memory."""
    pixels = cv2.cvtColor((picture * 255 + 0.5).astype(np.uint8), cv2.COLOR_RGB2BGR)
    _, stream = cv2.imencode(suffix, pixels, settings)
    decoded = cv2.imdecode(stream, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError(f"a {suffix} file with settings {settings} could not be read back")
    return cast(Picture, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32) / 255)


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


def mean_colour(picture: Picture) -> Picture:
    """The mean of the channels (H, W); numpy's own over an axis of three takes several times as long."""
    total = picture[..., 0] + picture[..., 1]
    total += picture[..., 2]
    total *= np.float32(1 / 3)
    return cast(Picture, total)


def clip(picture: npt.NDArray[np.floating] | cv2.typing.MatLike) -> Picture:
    """Into [0, 1], as float32."""
    return cast(Picture, np.clip(picture, 0, 1).astype(np.float32, copy=False))


def webp(picture: Picture, quality: Quality) -> Picture:
    """Lossy WebP and back: a VP8 key frame, with smoothed blocks and coarse colour; ``quality`` 1 to 100."""
    return coded(picture, ".webp", [cv2.IMWRITE_WEBP_QUALITY, int(quality)])


def recompress(
    picture: Picture,
    quality: Quality,
    times: Annotated[int, Range(1, 20)],
    shift: Annotated[int, Range(0, 15)],
    drift: Annotated[int, Range(-10, 10)],
) -> Picture:
    """JPEG ``times`` over, as a picture that is saved, cropped and sent on.

    Each time the grid of blocks lies ``shift`` pixels further down and right, so that new block edges join the old
    ones, and the quality changes by ``drift``.
    """
    height, width = picture.shape[:2]
    degraded = picture
    for number in range(times):
        offset = (number * shift) % 16
        padded = np.asarray(cv2.copyMakeBorder(degraded, offset, 0, offset, 0, cv2.BORDER_REFLECT_101), np.float32)
        again = jpeg(padded, min(max(quality + number * drift, 1), 100))
        degraded = again[offset : offset + height, offset : offset + width]
    return np.ascontiguousarray(degraded)
