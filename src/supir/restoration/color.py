"""Colour fix: the result takes its colours from a reference picture, its detail from the sample (reference section 11).

Diffusion drifts in colour. Both methods here bring it back to the `style` picture, the decoded degraded latent:

- wavelet: the finest five scales of the sample, everything coarser from the style;
- adain: each channel of the sample with the mean and deviation of the style.

Tensors are (..., C, H, W), any range; float32 or float64 is kept, half precision is computed in float32 and cast back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from supir.errors import OptionError
from supir.tensors.arrays import ArrayLike, bands

NUM_LEVELS = 5

WAVELET_HALO = 2**NUM_LEVELS - 1
"""Pixels of surroundings that a tile needs on each side so that its inside equals the untiled `wavelet_fix`:
the sum of the dilations, 1 + 2 + 4 + 8 + 16. (`adain_fix` has no halo: it needs the statistics of the whole.)
"""


def fix(sample: Tensor, style: Tensor, method: str = "wavelet", *, overwrite: bool = False) -> Tensor:
    """The colour fix by its option name; "none" returns `sample` itself, `overwrite` lets the result take its memory.

    Raises:
        OptionError: another method, or the two shapes differ.
    """
    if method == "none":
        return sample
    if method == "wavelet":
        return wavelet_fix(sample, style, overwrite=overwrite)
    if method == "adain":
        return adain_fix(sample, style, overwrite=overwrite)
    raise OptionError(f"color_fix is {method!r}; allowed are 'wavelet', 'adain' and 'none'")


def wavelet_fix(sample: Tensor, style: Tensor, num_levels: int = NUM_LEVELS, *, overwrite: bool = False) -> Tensor:
    """high(sample) + low(style), the a-trous wavelet colour fix.

    The low pass is linear, so this is sample + low(style - sample): one blur instead of two, one channel at a time,
    and no more memory than the result and three planes.

    `sample` keeps its detail, `style` gives its colours; with dilations 1, 2, ... 2^(num_levels - 1) a tile needs
    2^num_levels - 1 pixels around it. `overwrite` puts the result where a contiguous `sample` lies, which is gone then.
    """

    def fixed(plane: Tensor, style_plane: Tensor) -> Tensor:
        work = _working_dtype(plane)
        return _low_pass(style_plane.to(work) - plane.to(work), num_levels).add_(plane)

    return _plane_by_plane(fixed, sample, style, overwrite)


def fixed_bands(sample: ArrayLike, style: ArrayLike, method: str = "wavelet", rows: int = 256) -> Iterator[Tensor]:
    """The colour fix of what is too large for memory: bands (B, C, rows, W) of ``fix`` from top to bottom.

    Wavelets need the rows around a band, which are read with it; ``adain`` needs the statistics of the whole, for which
    all is read once more.

    Raises:
        OptionError: as ``fix``.
    """
    _check_shapes(sample, style)
    height, width = sample.shape[-2:]
    whole = slice(0, width)
    totals = [_totals(picture, rows) for picture in (sample, style)] if method == "adain" else []
    for top, bottom in bands(height, rows):
        halo = WAVELET_HALO if method == "wavelet" else 0
        first = max(0, top - halo)
        around = (..., slice(first, min(height, bottom + halo)), whole)
        if method == "adain":
            (mean, std), (style_mean, style_std) = totals
            yield (sample[around] - mean) / std * style_std + style_mean
        else:
            yield fix(sample[around], style[around], method)[..., top - first : bottom - first, :]


def _totals(picture: ArrayLike, rows: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation (B, C, 1, 1) as of ``_mean_and_std``, over bands."""
    height, width = picture.shape[-2:]
    sums = squares = torch.zeros(())
    for top, bottom in bands(height, rows):
        found = picture[..., slice(top, bottom), slice(0, width)]
        band, device = found.cpu().double(), found.device  # not every device has float64
        sums, squares = sums + band.sum((-2, -1), keepdim=True), squares + band.square().sum((-2, -1), keepdim=True)
    number = height * width
    mean = sums / number
    variance = (squares - number * mean.square()) / max(1, number - 1)
    return mean.float().to(device), (variance + 1e-5).sqrt().float().to(device)


def adain_fix(sample: Tensor, style: Tensor, *, overwrite: bool = False) -> Tensor:
    """(sample - mean) / std * std_style + mean_style, per sample and channel; std is sqrt(unbiased variance + 1e-5).

    `overwrite` as in `wavelet_fix`.
    """

    def fixed(plane: Tensor, style_plane: Tensor) -> Tensor:
        mean, std = _mean_and_std(plane)
        style_mean, style_std = _mean_and_std(style_plane)
        return (plane.to(_working_dtype(plane)) - mean).div_(std).mul_(style_std).add_(style_mean)

    return _plane_by_plane(fixed, sample, style, overwrite)


def _plane_by_plane(
    fixed: Callable[[Tensor, Tensor], Tensor], sample: Tensor, style: Tensor, overwrite: bool
) -> Tensor:
    _check_shapes(sample, style)
    planes, style_planes = (picture.reshape(-1, *picture.shape[-2:]) for picture in (sample, style))
    result = planes if overwrite else torch.empty_like(planes)
    for index, pair in enumerate(zip(planes, style_planes, strict=True)):
        result[index] = fixed(*pair)
    return result.reshape(sample.shape)


def _low_pass(plane: Tensor, num_levels: int) -> Tensor:
    """One (H, W) plane through the [1, 2, 1] / 4 kernel along both axes, dilated 1, 2, 4 ..., the edge repeated.

    The reference's 3x3 kernel is the product of the two, and so is its edge padding.
    """
    for level in range(num_levels):
        for axis in (0, 1):
            plane = _blur(plane, 2**level, axis)
    return plane


def _blur(plane: Tensor, dilation: int, axis: int) -> Tensor:
    size = plane.shape[axis]
    reach = min(dilation, size)  # beyond the picture there is only the edge
    first, last = plane.narrow(axis, 0, 1), plane.narrow(axis, size - 1, 1)
    result = plane * 2
    result.narrow(axis, reach, size - reach).add_(plane.narrow(axis, 0, size - reach))
    result.narrow(axis, 0, reach).add_(first)
    result.narrow(axis, 0, size - reach).add_(plane.narrow(axis, reach, size - reach))
    result.narrow(axis, size - reach, reach).add_(last)
    return result.mul_(0.25)


def _mean_and_std(plane: Tensor) -> tuple[Tensor, Tensor]:
    plane = plane.to(_working_dtype(plane))
    variance = plane.var(unbiased=True) if plane.numel() > 1 else plane.new_zeros(())
    return plane.mean(), (variance + 1e-5).sqrt()


def _working_dtype(plane: Tensor) -> torch.dtype:
    return torch.float64 if plane.dtype == torch.float64 else torch.float32


def _check_shapes(sample: ArrayLike, style: ArrayLike) -> None:
    if sample.shape != style.shape or len(sample.shape) < 2:
        raise OptionError(
            f"colour fix of a sample of shape {tuple(sample.shape)} with a style of shape {tuple(style.shape)}: "
            "both must be the same (..., C, H, W); resize the style first"
        )
