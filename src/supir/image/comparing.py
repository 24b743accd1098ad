"""Before and after in one picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from supir.image.picture import Picture, on_white
from supir.image.sizes import resize

__all__ = ["sheet_size", "side_by_side"]


def sheet_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of the sheet of a result of this size, in pixels."""
    return height, 2 * width + _line(width)


def _line(width: int) -> int:
    return max(2, width // 200)


def side_by_side(before: Picture, after: Picture, labels: tuple[str, str] | None = None) -> Picture:
    """`before`, enlarged to the size of `after`, to the left of it, with a thin white line between.

    Args:
        before: the input, in the same colour space.
        after: the result; its profile and metadata are kept.
        labels: texts for the two lower left corners.

    Returns:
        A picture 2 w + line wide; grey if both are; transparency laid on white.
    """
    height, width = after.height, after.width
    line = _line(width)
    channels = 1 if before.grey and after.grey else 3
    sheet = torch.ones(channels, *sheet_size(height, width))
    for picture, left in ((before, 0), (after, width + line)):
        sheet[:, :, left : left + width] = resize(on_white(picture).pixels, height, width)
    if labels is not None:
        for text, left in zip(labels, (0, width + line), strict=True):
            _label(sheet[:, :, left : left + width], text)
    return replace(after, pixels=sheet, alpha=None)


def _label(pixels: Tensor, text: str) -> None:
    """Draws `text` white on black into the lower left corner of (C, H, W), in place."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = pixels.shape[-2:]
    size = max(10, height // 30)
    font = ImageFont.load_default(size)
    left, top, right, bottom = (int(value) for value in font.getbbox(text))
    margin = size // 3
    image = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, fill=255, font=font)
    drawn = torch.from_numpy(np.array(image)).float().div_(127.5).sub_(1)
    drawn = drawn[:height, :width]
    pixels[:, height - drawn.shape[0] :, : drawn.shape[1]] = drawn
