"""Before and after in one picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from supir.image.credentials import Signature
from supir.image.large import LargePicture, open_large
from supir.image.picture import Picture, on_white
from supir.image.sizes import resize
from supir.image.writing import write_in_bands
from supir.image.xmp import record_of
from supir.options import SigningOptions

_ROWS = 256


def sheet_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of the sheet of a result of this size, in pixels."""
    return height, 2 * width + _line(width)


def _line(width: int) -> int:
    return max(2, width // 200)


def side_by_side(before: Picture, after: Picture) -> Picture:
    """`before`, enlarged to the size of `after`, to the left of it, with a thin white line between.

    Args:
        before: the input, in the same colour space.
        after: the result; its profile and metadata are kept.

    Returns:
        A picture 2 w + line wide; grey if both are; transparency laid on white.
    """
    height, width = after.height, after.width
    line = _line(width)
    channels = 1 if before.grey and after.grey else 3
    sheet = torch.ones(channels, *sheet_size(height, width))
    for picture, left in ((before, 0), (after, width + line)):
        sheet[:, :, left : left + width] = resize(on_white(picture).pixels, height, width)
    return replace(after, pixels=sheet, alpha=None)


def write_sheet(
    before: Path, after: Path, target: Path, *, salvage: bool = False, signing: SigningOptions | None = None
) -> None:
    """Write before and after, two picture files, side by side; from file to file, so that their size hardly matters.

    With ``salvage`` the first may be damaged. The sheet has the record of the second, where that has one, and is then
    signed with ``signing``.

    Raises:
        ImageReadError, ImageTooLargeError, ImageWriteError: as ``read`` and ``write``.
        OSError: there is no room in the target's folder for what is kept there meanwhile.
    """
    with open_large(before, target.parent, salvage=salvage) as first, open_large(after, target.parent) as second:
        grey = first.frame.grey and second.frame.grey
        frame = second.frame if grey or not second.frame.grey else replace(second.frame, pixels=torch.ones(3, 1, 1))
        size = sheet_size(second.height, second.width)
        record = record_of(frame.xmp) or None
        signature = Signature(signing, before) if signing else None
        bands = _sheet_bands(first, second)
        write_in_bands(replace(frame, alpha=None), size, bands, target, record=record, signature=signature)


def _sheet_bands(before: LargePicture, after: LargePicture) -> Iterator[Picture]:
    height, width = after.height, after.width
    for top in range(0, height, _ROWS):
        rows = slice(top, min(top + _ROWS, height))
        first, second = (picture.resized_band(height, width, rows) for picture in (before, after))
        yield side_by_side(first, second)
