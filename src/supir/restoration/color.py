"""Colour fix: the result takes its colours from a reference picture, its detail from the sample (reference section 11).

Diffusion drifts in colour. The methods here bring it back to the `style` picture, the decoded degraded latent:

- wavelet: the finest five scales of the sample, everything coarser from the style;
- adain: each channel of the sample with the mean and deviation of the style;
- lab: the same in CIELAB (Reinhard et al., Color Transfer between Images, 2001, with CIELAB for their l-alpha-beta);
- mkl: the linear map of least change that gives the sample the style's mean and covariance (Pitie and Kokaram, The
  linear Monge-Kantorovitch linear colour mapping, 2007).

Tensors are (..., C, H, W), any range; float32 or float64 is kept, half precision is computed in float32 and cast back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from supir.errors import OptionError
from supir.tensors.arrays import ArrayLike, bands

NUM_LEVELS = 5

WAVELET_HALO = 2**NUM_LEVELS - 1
"""Pixels of surroundings that a tile needs on each side so that its inside equals the untiled `wavelet_fix`:
the sum of the dilations, 1 + 2 + 4 + 8 + 16. (`adain_fix` has no halo: it needs the statistics of the whole.)
"""


def fix(
    sample: Tensor, style: Tensor, method: str = "wavelet", *, strength: float = 1.0, overwrite: bool = False
) -> Tensor:
    """The colour fix by its option name; "none" returns `sample` itself, `overwrite` lets the result take its memory.

    `strength` is how much of the way is gone, from 0, none of it, to 1.

    Raises:
        OptionError: another method, or the two shapes differ.
    """
    if method == "none" or strength == 0:
        return sample
    whole = overwrite and strength == 1
    if method == "wavelet":
        found = wavelet_fix(sample, style, overwrite=whole)
    elif method == "adain":
        found = adain_fix(sample, style, overwrite=whole)
    elif method in SPACES:
        found = matched(sample, [_moments([sample], method), _moments([style], method)], method)
    else:
        raise OptionError(f"color_fix is {method!r}; allowed are 'wavelet', 'adain', 'lab', 'mkl' and 'none'")
    return found if strength == 1 else torch.lerp(sample, found.to(sample.dtype), strength)


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


def fixed_bands(
    sample: ArrayLike, style: ArrayLike, method: str = "wavelet", rows: int = 256, *, strength: float = 1.0
) -> Iterator[Tensor]:
    """The colour fix of what is too large for memory: bands (B, C, rows, W) of ``fix`` from top to bottom.

    Wavelets need the rows around a band, which are read with it; the others need the statistics of the whole, for which
    all is read once more.

    Raises:
        OptionError: as ``fix``.
    """
    _check_shapes(sample, style)
    height, width = sample.shape[-2:]
    whole = slice(0, width)
    totals = [_totals(picture, rows) for picture in (sample, style)] if method == "adain" else []
    moments = [_moments(_bands_of(each, rows), method) for each in (sample, style)] if method in SPACES else []
    for top, bottom in bands(height, rows):
        halo = WAVELET_HALO if method == "wavelet" else 0
        first = max(0, top - halo)
        around = (..., slice(first, min(height, bottom + halo)), whole)
        part = sample[around]
        if method == "adain":
            (mean, std), (style_mean, style_std) = totals
            found = torch.lerp(part, (part - mean) / std * style_std + style_mean, strength)
        elif moments:
            found = torch.lerp(part, matched(part, moments, method), strength)
        else:
            found = fix(part, style[around], method, strength=strength)
        yield found[..., top - first : bottom - first, :]


def _bands_of(picture: ArrayLike, rows: int) -> Iterator[Tensor]:
    height, width = picture.shape[-2:]
    return (picture[..., slice(top, bottom), slice(0, width)] for top, bottom in bands(height, rows))


Moments = tuple[Tensor, Tensor]
"""Mean (B, 3) and covariance (B, 3, 3) of pixels, float64 on the processor."""
SPACES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "lab": (lambda pixels: _lab(pixels), lambda lab: _from_lab(lab)),
    "mkl": (lambda pixels: pixels, lambda pixels: pixels),
}
"""Of the methods that match statistics of three channels together: to the space where that is done, and back."""
_LINEAR_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
"""Of linear sRGB (IEC 61966-2-1), D65."""
_WHITE = (0.95047, 1.0, 1.08883)


def matched(sample: Tensor, moments: Sequence[Moments], method: str) -> Tensor:
    """(B, 3, H, W) with other statistics: ``moments`` are those that it has, and those that it is to have."""
    to_space, back = SPACES[method]
    (mean, covariance), (style_mean, style_covariance) = moments
    if method == "lab":
        spread, style_spread = (each.diagonal(dim1=-2, dim2=-1).sqrt() for each in (covariance, style_covariance))
        linear = torch.diag_embed(style_spread / spread)
    else:
        root, inverse = _root(covariance), torch.linalg.inv(_root(covariance))
        linear = inverse @ _root(root @ style_covariance @ root) @ inverse
    planes = to_space(sample.reshape(-1, *sample.shape[-3:]).to(_working_dtype(sample)))
    linear, mean, style_mean = (each.to(planes.device, planes.dtype) for each in (linear, mean, style_mean))
    moved = torch.einsum("bij,bjhw->bihw", linear, planes - mean[..., None, None]) + style_mean[..., None, None]
    return back(moved).reshape(sample.shape)


def _moments(parts: Iterable[Tensor], method: str) -> Moments:
    """Over all pixels of pictures (..., 3, rows, W), the covariance with 1e-5 on its diagonal as adain's variance."""
    number, total, products = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        if part.shape[-3] != 3:
            raise OptionError(f"color_fix {method} of {part.shape[-3]} channels; it needs red, green and blue")
        planes = (
            SPACES[method][0](part.reshape(-1, *part.shape[-3:]).to(_working_dtype(part))).flatten(2).cpu().double()
        )
        number += planes.shape[-1]
        total, products = total + planes.sum(-1), products + planes @ planes.mT
    mean = total / number
    covariance = products / number - mean[..., :, None] * mean[..., None, :]
    return mean, covariance + 1e-5 * torch.eye(3, dtype=torch.float64)


def _root(matrices: Tensor) -> Tensor:
    """The symmetric square roots of positive matrices."""
    values, vectors = torch.linalg.eigh(matrices)
    return vectors @ torch.diag_embed(values.clamp_min(1e-12).sqrt()) @ vectors.mT


def _lab(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) sRGB in [-1, 1], beyond it clamped, to CIELAB of D65: L from 0 to 100."""
    coded = ((pixels + 1) / 2).clamp(0, 1)
    light = torch.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    matrix = light.new_tensor(_LINEAR_TO_XYZ) / light.new_tensor(_WHITE)[:, None]
    xyz = torch.einsum("ij,bjhw->bihw", matrix, light)
    x, y, z = torch.where(xyz > (6 / 29) ** 3, xyz ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def _from_lab(lab: Tensor) -> Tensor:
    """The way back; what sRGB does not hold is clamped."""
    y = (lab[:, 0] + 16) / 116
    roots = torch.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], 1)
    xyz = torch.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29))
    matrix = torch.linalg.inv(torch.tensor(_LINEAR_TO_XYZ, dtype=torch.float64) / torch.tensor(_WHITE)[:, None])
    light = torch.einsum("ij,bjhw->bihw", matrix.to(lab.device, lab.dtype), xyz).clamp(0, 1)
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 2 - 1


def blended(result: Tensor, preview: Tensor, share: float, mask: Tensor | None = None) -> Tensor:
    """`result` with a share of `preview` in it, both (B, C, H, W); everywhere, or as a mask (H, W) in [0, 1] says."""
    if share == 0:
        return result
    weight = share if mask is None else (mask * share).to(result)
    return torch.lerp(result.clamp(-1, 1), preview.to(result).clamp(-1, 1), weight)  # what is seen of them


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
