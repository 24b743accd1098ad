"""The sizes on a picture's way through the networks, and the scale where nobody says one; numbers alone, no torch."""

from __future__ import annotations

import math
from typing import NamedTuple

from supir.errors import OptionError
from supir.image.paths import MAX_SIDE, SUFFIXES

MAX_ENLARGED = 4
"""`min_size` enlarges to at most this many of its squares: pictures of up to 1 to 4 reach it, a strip stays one."""
UNASKED = 64_000_000
"""Pixels of a result beyond which nobody gets a scale that he has not asked for."""


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


def scale_within(width: int, height: int, scale: float, suffix: str = "", most: float = UNASKED) -> float:
    """The scale of a picture for which nobody has said one.

    Args:
        width, height: of the picture, in pixels.
        scale: what it is for pictures of a common size.
        suffix: of the result, whose format may hold only so many pixels a side.
        most: pixels of the result.

    Returns:
        ``scale``; where that is beyond a limit, the largest whole one below it that is not, or 1.
    """
    side = MAX_SIDE.get(SUFFIXES.get(suffix.lower(), ""), math.inf)

    def fits(tried: float) -> bool:
        wide, high = width * tried, height * tried
        return wide * high <= most and max(wide, high) <= side

    smaller = range(math.ceil(scale) - 1, 0, -1)
    return next((tried for tried in (scale, *map(float, smaller)) if fits(tried)), min(scale, 1.0))
