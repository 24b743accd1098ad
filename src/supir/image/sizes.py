"""The sizes of a picture: what to work at, resizing, padding, laying two side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from supir.errors import OptionError

MAX_ENLARGED = 4
"""`min_size` enlarges to at most this many of its squares: pictures of up to 1 to 4 reach it, a strip stays one."""


class WorkingSize(NamedTuple):
    """What `working_size` gives; all in pixels."""

    output_height: int
    """Height of the result: the input's times the scale."""
    output_width: int
    height: int
    """Height the input is resized to before the network: at least the output's, larger where min_size asks for it."""
    width: int
    padded_height: int
    """`height` rounded up to the multiple; the difference is padding, cut off again after the network."""
    padded_width: int


def working_size(width: int, height: int, scale: float = 1.0, min_size: int = 0, multiple: int = 64) -> WorkingSize:
    """The sizes on a picture's way through the network.

    Unlike the reference, which stretches both sides to the multiple (`reference_size`), the aspect is kept and the
    rest padded.

    Args:
        width: of the input, in pixels.
        height: of the input, in pixels.
        scale: output side / input side, above 0.
        min_size: the network sees at least this many pixels on the shorter side, or as many as an area of
            ``MAX_ENLARGED * min_size ** 2`` allows; the output is not enlarged by it.
        multiple: what both padded sides are a multiple of.

    Raises:
        OptionError: a size below 1, a scale that is not a positive finite number.
    """
    if width < 1 or height < 1 or multiple < 1 or min_size < 0:
        raise OptionError(
            f"{width}x{height} pixels, min_size {min_size}, multiple {multiple}: sizes start at 1 (min_size at 0)"
        )
    if not (math.isfinite(scale) and scale > 0):
        raise OptionError(f"scale is {scale}; it must be above 0, for example 2 for twice the width and height")
    output_height, output_width = _round(height * scale), _round(width * scale)
    area, shorter, longer = MAX_ENLARGED * min_size**2, min(width, height) * scale, max(width, height) * scale
    bounds = min_size / shorter, math.sqrt(area / (shorter * longer)), area / (multiple * longer)  # with its padding
    factor = max(1.0, min(bounds))
    work_height = max(output_height, _round(height * scale * factor))
    work_width = max(output_width, _round(width * scale * factor))
    padded_height = math.ceil(work_height / multiple) * multiple
    padded_width = math.ceil(work_width / multiple) * multiple
    return WorkingSize(output_height, output_width, work_height, work_width, padded_height, padded_width)


def _round(value: float) -> int:
    return max(1, math.floor(value + 0.5))


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
