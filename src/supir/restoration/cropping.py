"""The clean preview of a part of a photo, as that part of the whole's: at the same size, on the same grid."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from supir.image import LargePicture, Picture, working_size
from supir.options import RestoreOptions
from supir.options.crop import Crop

MARGIN = 32
"""Pixels of surroundings, at least, that the networks see on each side of a part, at working size."""


def cropped_preview(
    picture: LargePicture, crop: Crop, options: RestoreOptions, multiple: int, preview: Callable[..., Tensor]
) -> Picture:
    """The part of the clean preview of ``picture`` that shows ``crop``.

    Args:
        picture: the photo.
        crop: within it.
        options: with its scale and ``min_size``.
        multiple: of both sides of what the networks take; the part begins at such a place of the whole, whose grid of
            latent pixels it shares.
        preview: makes (1, 3, h, w) in [-1, 1] at working size clean, given its ``enlargement`` and the ``whole``.
    """
    size = working_size(picture.width, picture.height, options.scale, options.min_size, multiple)
    down = crop.top, crop.top + crop.height, picture.height
    across = crop.left, crop.left + crop.width, picture.width
    rows = _surrounded(*down, size.height, size.padded_height, multiple)
    columns = _surrounded(*across, size.width, size.padded_width, multiple)
    pixels = picture.at_working_size(size, "cpu")[..., rows, columns]
    whole = size.padded_height, size.padded_width
    made = preview(pixels, enlargement=size.height / picture.height, whole=whole)[0].float().cpu()
    shown = _placed(*down, size.output_height), _placed(*across, size.output_width)
    return picture.part(size, *shown, made, (rows.start, columns.start))


def _surrounded(start: int, stop: int, side: int, working: int, padded: int, multiple: int) -> slice:
    """What the networks are shown of a side, at working size, for pixels from ``start`` to ``stop`` of the photo."""
    first = math.floor((start * working / side - MARGIN) / multiple) * multiple
    last = math.ceil((stop * working / side + MARGIN) / multiple) * multiple
    return slice(max(0, first), min(padded, last))


def _placed(start: int, stop: int, side: int, output: int) -> slice:
    """The pixels of the result that show those from ``start`` to ``stop`` of the photo: one at least."""
    first = min(output - 1, math.floor(start * output / side + 0.5))
    return slice(first, max(first + 1, math.floor(stop * output / side + 0.5)))
