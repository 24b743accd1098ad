"""What a data set asks for captions; `supir.caption` has those who can be asked.

A caption that came with the picture (`supir.data.provenance`) goes before; a captioner is asked for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Captioner"]


class Captioner(Protocol):
    """Anything that says in words what a picture shows. It must be picklable where several workers build."""

    @property
    def name(self) -> str:
        """Which captioner it is: recorded in the data set, and another name means other shards."""

    def __call__(self, image: Image.Image) -> str:
        """A caption in one line.

        Args:
            image: RGB, upright, sRGB, at its stored size.
        """
