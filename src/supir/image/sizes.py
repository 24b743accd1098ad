"""Pixels at another size: resizing and padding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from supir.errors import OptionError

Box = tuple[int, int, int, int]
"""Left, top, width, height, in pixels."""
SAME_SHAPE = 0.02
"""Of the logarithm of sides' ratios: by so much two of one shape may differ, beside what rounding makes."""


def resize(pixels: Tensor, height: int, width: int, *, limits: tuple[float, float] | None = (-1.0, 1.0)) -> Tensor:
    """Bicubic, antialiased when shrinking.

    Args:
        pixels: (C, H, W) or (B, C, H, W), any float type; half precision is computed in float32.
        height: of the result, in pixels.
        width: of the result, in pixels.
        limits: the result is clamped to these (bicubic overshoots at edges); None leaves it as it comes.
    """
    if pixels.shape[-2:] == (height, width):
        return pixels
    if height < 1 or width < 1:
        raise OptionError(f"resize to {width}x{height} pixels: both must be at least 1")
    dtype = pixels.dtype if pixels.dtype == torch.float64 else torch.float32
    planes = pixels.reshape(-1, 1, 1, *pixels.shape[-2:])
    result = torch.empty(len(planes), height, width, dtype=pixels.dtype, device=pixels.device)
    for index, plane in enumerate(planes):  # a plane at a time: the passes between need memory of their own
        result[index] = torch.nn.functional.interpolate(
            plane.to(dtype), (height, width), mode="bicubic", align_corners=False, antialias=True
        )[0, 0]
    if limits is not None:
        result.clamp_(*limits)
    return result.reshape(*pixels.shape[:-2], height, width)


def pad_to_multiple(pixels: Tensor, multiple: int) -> Tensor:
    """(..., H, W) mirrored at the bottom and the right until both sides are a multiple; the edge pixel is not doubled.

    Works for any size: a side of one pixel is repeated, a side shorter than its padding is mirrored to and fro.
    The original is `[..., :H, :W]` of the result.
    """
    if multiple < 1:
        raise OptionError(f"multiple is {multiple}; it must be at least 1")
    for axis in (-2, -1):
        size = pixels.shape[axis]
        padded = math.ceil(size / multiple) * multiple
        if padded != size:
            pixels = pixels.index_select(axis, mirrored_indices(0, padded, size).to(pixels.device))
    return pixels


def shapes_apart(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) are of two shapes, by more than their rounding to whole pixels can make."""
    apart = abs(math.log(first[0] / first[1] * second[1] / second[0]))
    return apart > SAME_SHAPE + 1 / min(*first, *second)


def mirrored_indices(start: int, stop: int, size: int) -> Tensor:
    """Which of ``size`` pixels stands at each place from ``start`` to ``stop`` when they are mirrored to and fro."""
    period = max(1, 2 * (size - 1))
    index = torch.arange(start, stop) % period
    return torch.minimum(index, period - index) % size


@dataclass(frozen=True)
class Resampling:
    """One axis of ``resize``, so that a window of the result can be computed alone.

    Keys' cubic kernel with a = -1/2 where it is widened to shrink, as antialiased resampling is done since Pillow; at
    the edges the weights inside the picture are scaled to sum to one.
    """

    size: int
    """Of what is given, in pixels."""
    result: int
    """Of what comes."""

    def needed(self, window: slice) -> slice:
        """The pixels that a window of the result is made of."""
        first, _ = self._reach(window.start)
        _, last = self._reach(window.stop - 1)
        return slice(first, last)

    def weights(self, window: slice) -> Tensor:
        """(pixels of the window, pixels needed), float32; each row sums to 1."""
        needed = self.needed(window)
        if self.size == self.result:
            return torch.eye(window.stop - window.start)
        places = (torch.arange(window.start, window.stop, dtype=torch.float64) + 0.5) * self._ratio
        pixels = torch.arange(needed.start, needed.stop, dtype=torch.float64) + 0.5
        found = _cubic((pixels - places[:, None]) / max(1.0, self._ratio))
        return (found / found.sum(1, keepdim=True)).float()

    @property
    def _ratio(self) -> float:
        return self.size / self.result

    def _reach(self, place: int) -> tuple[int, int]:
        if self.size == self.result:
            return place, place + 1
        centre, support = (place + 0.5) * self._ratio, 2 * max(1.0, self._ratio)
        return max(0, int(centre - support + 0.5)), min(self.size, int(centre + support + 0.5))


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, inner, torch.where(x < 2, outer, torch.zeros_like(x)))
