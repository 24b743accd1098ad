"""A part of a photo: a rectangle in whole pixels."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from supir.errors import OptionError

_FORM = re.compile(r"\d{1,9}(?:\s*,\s*\d{1,9}){3}")


class Crop(NamedTuple):
    """Left, top, width and height, in pixels of the photo as it stands upright; the first pixel is 0."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of ``left,top,width,height``.

        Raises:
            OptionError: it is written otherwise, or empty.
        """
        if not _FORM.fullmatch(text.strip()):
            raise OptionError(f"crop is {text!r}; it must be left,top,width,height in whole pixels, as 0,0,512,512")
        found = cls(*map(int, text.split(",")))
        if not found.width or not found.height:
            raise OptionError(f"crop is {text!r}, which is empty; width and height must be at least 1")
        return found

    def __str__(self) -> str:
        """As ``parse`` takes it."""
        return ",".join(map(str, self))

    def check_within(self, width: int, height: int) -> None:
        """Raise OptionError where it is not all within a photo of ``width`` by ``height`` pixels."""
        if self.left + self.width > width or self.top + self.height > height:
            raise OptionError(f"crop is {self}; it must lie within the photo, which has {width} x {height} pixels")
