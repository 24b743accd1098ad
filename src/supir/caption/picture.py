"""The clean preview as captioners read it."""

from __future__ import annotations

from PIL import Image

from supir.caption.words import MAX_SIDE
from supir.data.pixels import srgb
from supir.image import Picture


def readable(picture: Picture, max_side: int = MAX_SIDE) -> Image.Image:
    """A picture as RGB, sRGB, transparency laid on white, its longer side at most ``max_side`` pixels."""
    return reduced_to(Image.fromarray(srgb(picture)), max_side)


def reduced_to(image: Image.Image, max_side: int) -> Image.Image:
    """The picture, smaller where it is larger than that; its aspect is kept."""
    if max(image.size) <= max_side:
        return image
    smaller = image.copy()
    smaller.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return smaller
