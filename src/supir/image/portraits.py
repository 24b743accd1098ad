"""Portraits: faces with what is around them, cut out of a photo to be restored by themselves, and put back.

A face takes few pixels of most photos, and networks know faces that fill a picture. Cut out and restored at the size
that a model is made for, and reduced to where it stands, it has as many pixels to be painted with as it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from supir.image.masks import softened
from supir.image.picture import Picture
from supir.image.sizes import Box, resize
from supir.options import RestoreOptions
from supir.options.restore import AS_ALL_ELSE

HEAD = (0.75, 0.95, -0.1)
"""Of an oval around a head, in sides of the face's box: half of it across and down, and how much lower it lies."""
AROUND = 0.5
"""Of a portrait, beyond that oval, in sides of the face's box: what the networks see of what is around a head."""
LARGER = 1.25
"""A face that would be less than so many times larger by itself stays where it stands."""


@dataclass(frozen=True)
class Portrait:
    """A face of a photo with what is around it."""

    face: Box
    """Both in pixels of the photo."""
    box: Box
    """What is cut out."""

    def placed(self, restored: Picture, photo: tuple[int, int], size: tuple[int, int], edge: int) -> Placed:
        """The portrait, restored, on its place in a result.

        Args:
            restored: what was cut out, at whatever size.
            photo, size: (height, width) of the photo and of the result.
            edge: pixels of the result over which it fades outside of the head.
        """
        left, top, width, height = self.box
        down, across = (large / small for large, small in zip(size, photo, strict=True))
        rows = slice(round(top * down), min(size[0], round((top + height) * down)))
        columns = slice(round(left * across), min(size[1], round((left + width) * across)))
        high, wide = rows.stop - rows.start, columns.stop - columns.start
        face = self.face[0] - left, self.face[1] - top, *self.face[2:]
        share = softened(head_mask([face], width, height, high, wide).float(), edge)
        return Placed(resize(restored.pixels.contiguous(), high, wide), share, rows, columns)


@dataclass(frozen=True, eq=False)
class Placed:
    """A restored portrait on its place in a result."""

    pixels: Tensor
    """(3 or 1, rows, columns) in [-1, 1]."""
    share: Tensor
    """(rows, columns), how much of each pixel is its own: all of the head, and less and less around it."""
    rows: slice
    """Of the result."""
    columns: slice

    def beside(self, shares: Tensor, size: tuple[int, int]) -> Placed:
        """Without the pixels that others have, by ``shares`` (R, h, w) over all of a result of this (height, width)."""
        left = 1 - shares.sum(0)
        down, across = (
            (torch.arange(where.start, where.stop) * small // whole).clamp(max=small - 1)
            for where, small, whole in zip((self.rows, self.columns), left.shape, size, strict=True)
        )
        return replace(self, share=self.share * left[down][:, across])

    def put_on(self, made: Picture, top: int = 0) -> Picture:
        """A result, or a band of it that begins at a row, with the portrait."""
        first, last = max(self.rows.start, top), min(self.rows.stop, top + made.height)
        if first >= last:
            return made
        own, there = slice(first - self.rows.start, last - self.rows.start), slice(first - top, last - top)
        pixels = made.pixels.clone()
        part = pixels[:, there, self.columns]
        pixels[:, there, self.columns] = torch.lerp(part, self.pixels[:, own].to(part), self.share[own])
        return replace(made, pixels=pixels)


def portraits_of(faces: Sequence[Box], photo: tuple[int, int], options: RestoreOptions) -> list[Portrait]:
    """Those that are clearly larger, on the shorter side, by themselves than where they stand.

    Args:
        faces: from the brows to the chin, in pixels of the photo.
        photo: (width, height) of it.
        options: with which it is restored; by ``portrait_options`` portraits are.
    """
    edge, there = options.region_edge / options.scale, max(options.scale, options.min_size / min(photo))
    found = []
    for face in faces:
        left, top, width, height = face
        beside, above = (
            max(AROUND * side, edge) + half * side for side, half in zip((width, height), HEAD[:2], strict=True)
        )
        middle, centre = left + 0.5 * width, top + (0.5 + HEAD[2]) * height
        first, last = max(0, round(middle - beside)), min(photo[0], round(middle + beside))
        upper, lower = max(0, round(centre - above)), min(photo[1], round(centre + above))
        box = first, upper, last - first, lower - upper
        if there * min(box[2:]) * LARGER <= options.min_size:
            found.append(Portrait(face, box))
    return found


def portrait_options(options: RestoreOptions) -> RestoreOptions:
    """Of portraits: gentle all over; what names places of the whole photo is left out."""
    unplaced = {"region": "", "tile_prompts": ""} | ({"blend": 0.0, "blend_mask": ""} if options.blend_mask else {})
    return RestoreOptions.silent(**vars(options) | unplaced | {"faces": AS_ALL_ELSE, "detail": 0.0})


def head_mask(faces: Sequence[Box], width: int, height: int, rows: int, columns: int) -> Tensor:
    """(rows, columns), whether a head is there, of a photo of ``width`` x ``height`` pixels that they show."""
    down = (torch.arange(rows)[:, None] + 0.5) / rows * height
    across = (torch.arange(columns) + 0.5) / columns * width
    found = torch.zeros(rows, columns, dtype=torch.bool)
    for left, top, box_width, box_height in faces:
        half_width, half_height, lower = HEAD
        high = (down - top - (0.5 + lower) * box_height) / (half_height * box_height)
        found |= high**2 + ((across - left - 0.5 * box_width) / (half_width * box_width)) ** 2 < 1
    return found
