"""The single operations of degradation: blur, resize, noise, compression.

Pictures are float32 (H, W, 3) RGB in [0, 1]; every operation returns a new one in that range. Chance enters only as a
seed, so an operation with its values is a function.
"""

from __future__ import annotations

from typing import Literal, cast

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32]
KernelShape = Literal["gaussian", "generalized", "plateau"]
Interpolation = Literal["area", "bilinear", "bicubic"]

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
    kernel = cutoff * _bessel_j1(cutoff * radius) / (2 * np.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * np.pi)
    return cast(Picture, (kernel / kernel.sum()).astype(np.float32))


def _bessel_j1(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """J1 by the trapezoid rule on its integral, exact to float precision for the arguments used here."""
    theta = (np.arange(256) + 0.5) * (np.pi / 256)
    integral = np.cos(theta - x[..., None] * np.sin(theta)).mean(-1)
    return cast("npt.NDArray[np.float64]", integral)


def blur(picture: Picture, kernel: Picture) -> Picture:
    """Convolution with reflected borders."""
    return _clip(cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REFLECT_101))


def resize(picture: Picture, height: int, width: int, interpolation: Interpolation) -> Picture:
    """OpenCV's resize; only ``area`` has an antialiasing window when shrinking, as in Real-ESRGAN's own process."""
    return _clip(cv2.resize(picture, (width, height), interpolation=_INTERPOLATION[interpolation]))


def shrink(picture: Picture, height: int, width: int) -> Picture:
    """Antialiased reduction as photo software does it: a slight blur, then bicubic."""
    ratio = picture.shape[0] / height
    if ratio > 1:
        sigma = 0.45 * np.sqrt(max(ratio**2 - 1, 0))
        picture = cv2.GaussianBlur(picture, (0, 0), float(sigma) + 1e-3, borderType=cv2.BORDER_REFLECT_101)
    return _clip(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC))


def gaussian_noise(picture: Picture, strength: float, grey: bool, seed: int) -> Picture:
    """Additive noise with a standard deviation of ``strength`` / 255, the same for all channels when ``grey``."""
    rng = np.random.default_rng(seed)
    shape = (*picture.shape[:2], 1 if grey else 3)
    return _clip(picture + rng.standard_normal(shape, dtype=np.float32) * np.float32(strength / 255))


def poisson_noise(picture: Picture, strength: float, grey: bool, seed: int) -> Picture:
    """Signal-dependent noise of a 255-photon exposure, its deviation times ``strength``."""
    rng = np.random.default_rng(seed)
    signal = picture.mean(2, keepdims=True) if grey else picture
    noise = rng.poisson(signal * 255).astype(np.float32) / 255 - signal
    return _clip(picture + noise * np.float32(strength))


def jpeg(picture: Picture, quality: int) -> Picture:
    """JPEG compression and decompression (4:2:0), ``quality`` 1 to 100."""
    pixels = cv2.cvtColor((picture * 255 + 0.5).astype(np.uint8), cv2.COLOR_RGB2BGR)
    _, stream = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    decoded = cv2.imdecode(stream, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError(f"JPEG of quality {quality} could not be read back")
    return cast(Picture, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32) / 255)


def _clip(picture: npt.NDArray[np.floating] | cv2.typing.MatLike) -> Picture:
    return cast(Picture, np.clip(picture, 0, 1).astype(np.float32))
