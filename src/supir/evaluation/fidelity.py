"""Fidelity to an original, by nothing but torch: of every pixel, of structure, and as seen.

Pictures are (3, H, W) floats in [-1, 1], RGB as sRGB encodes it; every measure gives one Python float.

psnr, psnr_y      fidelity of every pixel; prefers a blurred answer to a wrong one
ssim, ssim_rgb    fidelity of local structure
haar_psi          fidelity as seen, from wavelets; needs no weights
detail_balance    how strong and how true detail is (ours; no paper has it)

Written here, since torchmetrics' SSIM counts windows over mirrored borders too, so that its numbers are others, and
piq's HaarPSI brings torchvision.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from supir.errors import OptionError
from supir.tensors.gaussian import gaussian_blur, gaussian_means


def check_pair(picture: Tensor, reference: Tensor, smallest: int = 1) -> None:
    """Refuse pictures that cannot be compared.

    Raises:
        OptionError: other shapes than (3, H, W), two sizes, or a side below ``smallest`` pixels.
    """
    for tensor in (picture, reference):
        check_picture(tensor, smallest)
    if picture.shape != reference.shape:
        raise OptionError(
            f"the picture is {picture.shape[2]}x{picture.shape[1]} pixels and its reference "
            f"{reference.shape[2]}x{reference.shape[1]}; resize one of them before they are compared"
        )


def check_picture(picture: Tensor, smallest: int = 1) -> None:
    """Refuse what is no (3, H, W) float picture of at least ``smallest`` pixels a side.

    Raises:
        OptionError: it is not.
    """
    if picture.ndim != 3 or picture.shape[0] != 3 or not picture.is_floating_point():
        raise OptionError(f"a picture is {picture.dtype} {tuple(picture.shape)}; allowed is float (3, H, W)")
    if min(picture.shape[1:]) < smallest:
        raise OptionError(
            f"a picture is {picture.shape[2]}x{picture.shape[1]} pixels; this measure needs at least {smallest} a side"
        )


def in_255(picture: Tensor) -> Tensor:
    """(3, H, W) in [-1, 1] to float64 in [0, 255], clamped, not rounded."""
    return picture.detach().to("cpu", torch.float64).clamp(-1, 1).add(1).mul(127.5)


def luma(picture: Tensor) -> Tensor:
    """Luma (H, W) of ITU-R BT.601 in its studio range 16 to 235, float64; of a picture (3, H, W) in [-1, 1]."""
    red, green, blue = in_255(picture) / 255
    return 65.481 * red + 128.553 * green + 24.966 * blue + 16


def psnr(picture: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio over all RGB values, in dB; infinite for equal pictures."""
    check_pair(picture, reference)
    return _decibels(in_255(picture), in_255(reference))


def psnr_y(picture: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio of the luma, in dB, peak 255 as is the custom."""
    check_pair(picture, reference)
    return _decibels(luma(picture), luma(reference))


def _decibels(first: Tensor, second: Tensor) -> float:
    error = float((first - second).square().mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(picture: Tensor, reference: Tensor) -> float:
    """Structural similarity of the luma, mean over the windows that lie inside (Wang et al. 2004, equation 13).

    Raises:
        OptionError: sizes differ, or a side is below 11 pixels.
    """
    check_pair(picture, reference, smallest=11)
    return _ssim(luma(picture), luma(reference))


def ssim_rgb(picture: Tensor, reference: Tensor) -> float:
    """Structural similarity of each of R, G and B as in ``ssim``, their mean.

    Raises:
        OptionError: sizes differ, or a side is below 11 pixels.
    """
    check_pair(picture, reference, smallest=11)
    return sum(_ssim(x, y) for x, y in zip(in_255(picture), in_255(reference), strict=True)) / 3


def _ssim(x: Tensor, y: Tensor) -> float:
    """Of two planes (H, W) of 0 to 255."""
    maps = torch.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, square_x, square_y, product = gaussian_means(maps, 11, 1.5)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance = product - mean_x * mean_y
    variances = square_x - mean_x**2 + square_y - mean_y**2
    found = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return float(found.mean())


_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
_HAAR_C, _HAAR_ALPHA = 30.0, 4.2


def haar_psi(picture: Tensor, reference: Tensor) -> float:
    """Haar wavelet perceptual similarity in colour (Reisenhofer et al. 2018, section 2); 1 for equal pictures.

    Raises:
        OptionError: sizes differ, or a side is below 16 pixels.
    """
    check_pair(picture, reference, smallest=16)
    first, second = (_halved_yiq(tensor) for tensor in (picture, reference))
    coefficients = [_haar_magnitudes(planes[0]) for planes in (first, second)]  # each (2 orientations, 3 scales, h, w)
    local = _similarity(coefficients[0][:, :2], coefficients[1][:, :2]).mean(1)
    weights = torch.maximum(coefficients[0][:, 2], coefficients[1][:, 2])
    chroma = _similarity(*(_same_convolution(p[1:, None], torch.full((2, 2), 0.25)).abs() for p in (first, second)))
    local = torch.cat([local, chroma.mean(0)])
    weights = torch.cat([weights, weights.mean(0, keepdim=True)])
    if float(weights.sum()) == 0:  # two pictures without any edge
        weights = torch.ones_like(weights)
    pooled = float((torch.sigmoid(_HAAR_ALPHA * local) * weights).sum() / weights.sum())
    return (math.log(pooled / (1 - pooled)) / _HAAR_ALPHA) ** 2


def _halved_yiq(picture: Tensor) -> Tensor:
    """(3, h, w): YIQ of [0, 255], means over 2 x 2 pixels (an odd last line is filled with zeros as in the paper)."""
    planes = torch.einsum("ij,jhw->ihw", torch.tensor(_YIQ, dtype=torch.float64), in_255(picture))
    height, width = planes.shape[1:]
    return F.avg_pool2d(F.pad(planes, (0, width % 2, 0, height % 2))[:, None], 2)[:, 0]


def _same_convolution(planes: Tensor, kernel: Tensor) -> Tensor:
    """(N, 1, h, w) by an even square kernel, zeros around, of the same size."""
    before, after = len(kernel) // 2 - 1, len(kernel) // 2
    return F.conv2d(F.pad(planes, (before, after, before, after)), kernel.to(planes.dtype)[None, None])


def _haar_magnitudes(plane: Tensor) -> Tensor:
    """(2, 3, h, w): absolute Haar coefficients, horizontal and vertical, of supports 2, 4 and 8."""
    found = []
    for scale in (1, 2, 3):
        side = 2**scale
        kernel = torch.full((side, side), 1 / side)
        kernel[: side // 2] *= -1
        found.append([_same_convolution(plane[None, None], k)[0, 0].abs() for k in (kernel, kernel.T)])
    return torch.stack([torch.stack([by_scale[way] for by_scale in found]) for way in (0, 1)])


def _similarity(first: Tensor, second: Tensor) -> Tensor:
    return (2 * first * second + _HAAR_C) / (first**2 + second**2 + _HAAR_C)


OCTAVES = (1.0, 2.0, 4.0, 8.0)
"""Deviations in pixels of the Gaussians between which a band of detail lies; the finest begins at the pixels."""
WINDOW = 2.0
"""Deviation of the window in which strength is measured, over the band's."""
THRESHOLD = 4.0
"""Variance in grey levels below which detail is not seen: it counts as equal."""


def detail_balance(picture: Tensor, reference: Tensor) -> float:
    """Geometric mean over four octaves of ``e (1 + r) / 2``, 1 for equal pictures (3, H, W) in [-1, 1]; on luma.

    Measures of fidelity punish detail in a slightly wrong place more than none at all, so blur wins; measures without
    reference ask for any detail, so invention wins. Here each octave of detail is asked two things, place by place. Is
    it as strong as in the original? And does it follow the original, run against it, or neither?

        none where there should be some           0      blur
        as strong, unrelated to the original      1/2    a plausible invention
        as strong, and the original's             1      right
        as strong, reversed, or far too strong    to 0   halos, noise, a grid

    In each octave, with the local deviations s, t of picture and reference and their covariance c: ``2 s t / (s^2 +
    t^2)`` is e, whether detail is as strong, and ``c / (s t)`` is r, whether it is the same. Their product is averaged
    with the weight s + t. As the mean is geometric, an octave that is missing is not made up for by the others.

    Raises:
        OptionError: sizes differ, or a side is below 49 pixels, the reach of the widest window.
    """
    check_pair(picture, reference, smallest=int(3 * WINDOW * OCTAVES[-1]) + 1)
    planes = torch.stack([luma(picture), luma(reference)])
    found = []
    for octave in OCTAVES:
        softer = gaussian_blur(planes, octave, mode="reflect")
        band, wanted = planes - softer
        found.append(_balance(band, wanted, WINDOW * octave))
        planes = softer
    return math.prod(found) ** (1 / len(found))


def _balance(band: Tensor, wanted: Tensor, window: float) -> float:
    """Of one band (H, W), whose own mean is near zero everywhere."""
    moments = gaussian_blur(torch.stack([band * band, wanted * wanted, band * wanted]), window, mode="reflect")
    s, t = moments[:2].clamp(min=0).sqrt()
    equal = (2 * s * t + THRESHOLD) / (s * s + t * t + THRESHOLD)
    related = (moments[2] + THRESHOLD) / (s * t + THRESHOLD)
    weight = s + t + 1e-6
    return float((weight * equal * (1 + related) / 2).sum() / weight.sum())
