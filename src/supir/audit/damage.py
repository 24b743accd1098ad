"""What was done to the photo, estimated from the input and a result: scale, blur, noise, JPEG's grid; and how surely.

A result that the input explains becomes the input when it is damaged in the same way again (Wald's protocol).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from supir.audit.windows import gaussian, luma
from supir.image import resize

BLURS = (0.0, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
"""Deviations of the Gaussians that are tried, in pixels of the input."""
BLOCK = 8
"""Pixels of the input a side of the blocks that are compared, and of JPEG's."""
KEPT_BLOCKS = 0.9
"""Share of the blocks that decide: a few places may be invented."""
SURE_GRID = 4.0
"""Deviations by which JPEG's borders stand out from chance where a grid counts as seen."""
REDUCTIONS = (1.5, 2.0, 3.0, 4.0)
"""Factors by which the input is made smaller and enlarged again, to see what it resolves."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """An estimate. Blur in pixels of the input, noise in grey levels of 255."""

    scale: float
    """Side of the result over that of the input."""
    blur: float
    """Deviation of a Gaussian before the reduction to the input's size."""
    blur_range: tuple[float, float]
    """Those that explain the input as well, within two standard errors over its blocks."""
    noise: float
    """Deviation of what a smooth place of the input holds and the result does not, compression included."""
    noise_range: tuple[float, float]
    """A quarter of the smooth places each hold less and more."""
    jpeg: float
    """How far differences across the borders of blocks of 8 stand out, in standard errors."""
    jpeg_offset: tuple[int, int]
    """Row and column of the grid's first border, 0 to 7."""
    resolved: float
    """The input can be made smaller by this and enlarged again with no loss above its noise: 1 if every pixel tells."""

    @property
    def jpeg_seen(self) -> bool:
        """Whether a grid is there beyond doubt."""
        return self.jpeg > SURE_GRID

    def as_json(self) -> dict[str, Any]:
        """As reports have it."""
        rounded = {name: _rounded(value) for name, value in asdict(self).items()}
        return {**rounded, "jpeg_seen": self.jpeg_seen}

    def __str__(self) -> str:
        """A clause."""
        low, high = self.blur_range
        told = [
            f"{self.scale:.3g} times smaller than the result",
            f"a blur of {self.blur:.2g} pixels ({low:.2g} to {high:.2g} fit as well)",
            f"noise of {self.noise:.2g} levels ({self.noise_range[0]:.2g} to {self.noise_range[1]:.2g} by place)",
            f"a JPEG grid ({self.jpeg:.0f} deviations)" if self.jpeg_seen else "no JPEG grid seen",
        ]
        if self.resolved > 1:
            told.append(f"detail as if enlarged {self.resolved:g} times")
        return ", ".join(told)


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(each) for each in value]
    return round(value, 3) if isinstance(value, float) else value


def damaged_again(after: Tensor, blur: float, height: int, width: int) -> Tensor:
    """(C, height, width): the result (C, H, W) with the damage that can be repeated, a blur and the reduction.

    ``blur`` is in pixels of what comes.
    """
    scale = max(after.shape[-2] / height, after.shape[-1] / width, 1.0)
    return resize(gaussian(after, blur * scale), height, width, limits=None)


def estimate(before: Tensor, after: Tensor, scale: float) -> Damage:
    """Of (3, h, w) and (3, H, W) in grey levels, the first no larger than the second.

    Args:
        before: the input.
        after: what explains it: a faithful restoration. An invention in some of its places does not matter.
        scale: side of the result over that of the input as it came.
    """
    height, width = before.shape[-2:]
    given, result, kept = luma(before), luma(after), max(1, round(KEPT_BLOCKS * (height // BLOCK) * (width // BLOCK)))
    losses = []
    for blur in BLURS:
        again = damaged_again(result, blur, height, width)
        losses.append(_blocks((given - again).square()))
    trimmed = torch.stack([loss.sort().values[:kept].mean() for loss in losses])
    best = int(trimmed.argmin())
    chosen = losses[best].argsort()[:kept]
    near = [blur for blur, loss in zip(BLURS, losses, strict=True) if _as_good(loss[chosen], losses[best][chosen])]
    residual = given - damaged_again(result, BLURS[best], height, width)
    noise, noise_range = _noise(residual, damaged_again(result, 0.0, height, width))
    jpeg, offset = _grid(given[0])
    return Damage(
        scale=scale, blur=BLURS[best], blur_range=(min(near), max(near)), noise=noise, noise_range=noise_range,
        jpeg=jpeg, jpeg_offset=offset, resolved=_resolved(given, noise),
    )  # fmt: skip


def _blocks(plane: Tensor) -> Tensor:
    """Means of the whole blocks of (1, H, W), a list; of all of it where it holds none."""
    if min(plane.shape[-2:]) < BLOCK:
        return plane.mean().reshape(1)
    return F.avg_pool2d(plane, BLOCK).flatten()


def _as_good(loss: Tensor, best: Tensor) -> bool:
    """Whether one is no worse than the other within two standard errors of the mean difference."""
    difference = loss - best
    error = difference.std() / len(difference) ** 0.5 if len(difference) > 1 else difference.abs().mean()
    return bool(difference.mean() <= 2 * error + 1e-3)


def _noise(residual: Tensor, clean: Tensor) -> tuple[float, tuple[float, float]]:
    """Deviation of the residual (1, h, w) in the half of the blocks where the clean one changes least."""
    height, width = residual.shape[-2:]
    if min(height, width) < 2 * BLOCK:
        found = float(residual.std())
        return found, (found, found)
    means = _blocks(residual)
    variances = (_blocks(residual.square()) - means.square()).clamp(min=0)
    flat = (_blocks(clean.square()) - _blocks(clean).square()).argsort()[: max(1, len(variances) // 2)]
    deviations = variances[flat].sqrt()
    low, middle, high = (float(deviations.quantile(share)) for share in (0.25, 0.5, 0.75))
    return middle, (low, high)


def _grid(plane: Tensor) -> tuple[float, tuple[int, int]]:
    """How far the borders of a grid of 8 stand out in (h, w), and where it begins."""
    if min(plane.shape) < 4 * BLOCK:
        return 0.0, (0, 0)
    found, offsets = [], []
    for turned in (plane, plane.T):
        steps = turned.diff(dim=0).abs()
        rows = (steps[1:-1] - (steps[:-2] + steps[2:]) / 2).clamp(-20, 20).mean(1)
        places = (torch.arange(len(rows)) + 2) % BLOCK
        means = torch.stack([rows[places == phase].mean() for phase in range(BLOCK)])
        offset = int(means.argmax())
        others = rows[places != offset]
        border = rows[places == offset]
        error = others.std() / len(border) ** 0.5
        found.append(float((means[offset] - others.mean()) / error.clamp(min=1e-3)))
        offsets.append(offset)
    return min(found), (offsets[0], offsets[1])


def _resolved(plane: Tensor, noise: float) -> float:
    height, width = plane.shape[-2:]
    best = 1.0
    for factor in REDUCTIONS:
        small = max(1, round(height / factor)), max(1, round(width / factor))
        back = resize(resize(plane, *small, limits=None), height, width, limits=None)
        if float((plane - back).square().mean().sqrt()) > 1.0 + noise / 2:
            break
        best = factor
    return best
