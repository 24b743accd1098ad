"""NIQE: how far a picture's statistics are from those of undistorted photographs (Mittal, Soundararajan, Bovik 2013).

The pristine model, ``niqe_pristine.npz`` (mean (36,), covariance (36, 36)), is that of
``basicsr/metrics/niqe_pris_params.npz`` in basicsr-fixed 1.4.2 on PyPI (Apache-2.0), unchanged; no code of that
package is used. The picture is reduced to rounded BT.601 luma and cut to whole blocks of 96 x 96 pixels from the upper
left; no block is left out for its sharpness, as in that package, so that the values compare with those it gives.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from supir.errors import OptionError
from supir.evaluation.fidelity import check_picture, luma
from supir.tensors.gaussian import gaussian_blur

Array = npt.NDArray[np.float64]

BLOCK = 96
"""Pixels a side of a block at the full size."""
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Down and right: horizontal, vertical and the two diagonals."""


def niqe(picture: Tensor) -> float:
    """Natural image quality of (3, H, W) in [-1, 1]: about 3 for good photographs, larger is worse.

    Raises:
        OptionError: fewer than two blocks of 96 pixels, so that there is no covariance.
    """
    check_picture(picture, smallest=BLOCK)
    rows, columns = (side // BLOCK for side in picture.shape[1:])
    if rows * columns < 2:
        raise OptionError(
            f"the picture is {picture.shape[2]}x{picture.shape[1]} pixels; NIQE needs at least two blocks of "
            f"{BLOCK}x{BLOCK}, such as {2 * BLOCK}x{BLOCK}"
        )
    fine = luma(picture)[: rows * BLOCK, : columns * BLOCK].round()
    features = np.concatenate([_block_features(fine, BLOCK), _block_features(_halved(fine), BLOCK // 2)], 1)
    mean, covariance = _pristine()
    whole = features[~np.isnan(features).any(1)]  # a flat block has no shape to fit
    if len(whole) < 2:
        raise OptionError("fewer than two blocks of the picture have any texture; NIQE is not defined for it")
    difference = np.nanmean(features, 0) - mean
    pooled = np.linalg.pinv((np.cov(whole, rowvar=False) + covariance) / 2)
    return math.sqrt(max(0.0, float(difference @ pooled @ difference)))


@cache
def _pristine() -> tuple[Array, Array]:
    with np.load(Path(__file__).with_name("niqe_pristine.npz")) as stored:
        return stored["mean"], stored["covariance"]


def _halved(plane: Tensor) -> Tensor:
    """(H, W) of even sides at half the size: antialiased cubic (a = -0.5, 8 taps), borders mirrored with the edge."""
    distance = (np.arange(8) - 3.5) / 2
    near, far = np.abs(distance), np.abs(distance)
    taps = np.where(near <= 1, 1.5 * near**3 - 2.5 * near**2 + 1, -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2)
    kernel = torch.from_numpy(taps / taps.sum())
    for _ in range(2):  # down the columns, turned, and again
        padded = torch.cat([plane[:3].flip(0), plane, plane[-3:].flip(0)])
        plane = torch.einsum("iwk,k->iw", padded.unfold(0, 8, 2), kernel).T
    return plane


def _normalised(plane: Tensor) -> Tensor:
    """Mean-subtracted, contrast-normalised luma; edge pixels repeated beyond the border."""
    mean, square = gaussian_blur(torch.stack([plane, plane.square()]), 7 / 6, mode="replicate", reach=3)
    values = (plane - mean) / ((square - mean.square()).abs().sqrt() + 1)
    return values * (values.abs() > 1e-6)  # rounding would give flat parts a sign at random, and signs are counted


def _block_features(plane: Tensor, side: int) -> Array:
    """(N, 18): of each block the shape and width of its values, and four numbers for each of the four neighbours."""
    height, width = plane.shape
    blocks = _normalised(plane).reshape(height // side, side, width // side, side).transpose(1, 2)
    flat = blocks.reshape(-1, side, side)
    shape, left, right = _asymmetric_fit(flat)
    features = [shape, (left + right) / 2]
    for shift in _NEIGHBOURS:
        shape, left, right = _asymmetric_fit(flat * flat.roll(shift, (1, 2)))
        features += [shape, (right - left) * _gamma(2 / shape) / _gamma(1 / shape), left, right]
    return np.stack(features, 1)


def _asymmetric_fit(blocks: Tensor) -> tuple[Array, Array, Array]:
    """Shape, left and right width (each (N,)) of the asymmetric generalised Gaussian, by moments."""
    values = blocks.flatten(1).numpy()
    left, right = (_root_mean_square(values, values < 0), _root_mean_square(values, values > 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        skew = left / right
        ratio = np.abs(values).mean(1) ** 2 / (values**2).mean(1)
        wanted = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes, ratios = _shape_table()
    index = np.abs(ratios[None] - np.nan_to_num(wanted, nan=0.0)[:, None]).argmin(1)
    shape = np.where(np.isnan(wanted), np.nan, shapes[index])
    scale = np.sqrt(_gamma(1 / shape) / _gamma(3 / shape))
    return shape, left * scale, right * scale


def _root_mean_square(values: Array, chosen: npt.NDArray[np.bool_]) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt((values**2 * chosen).sum(1) / chosen.sum(1))


@cache
def _shape_table() -> tuple[Array, Array]:
    """Shapes 0.2 to 10 in steps of 0.001, and the ratio of moments that each has."""
    shapes = np.arange(200, 10001) / 1000
    return shapes, _gamma(2 / shapes) ** 2 / (_gamma(1 / shapes) * _gamma(3 / shapes))


def _gamma(values: Array) -> Array:
    return torch.lgamma(torch.from_numpy(np.asarray(values, np.float64))).exp().numpy()
