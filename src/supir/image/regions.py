"""Regions on a picture: where each is, in latent pixels for the sampler, and whose pixels of the result stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from supir.image.masks import mask_pixels, softened, spread
from supir.image.picture import Picture
from supir.image.sizes import Resampling
from supir.options import RestoreOptions
from supir.options.regions import KEEPS, Rectangle, Region, split_regions

_WHITE = 1 - 1 / 512
"""From here on a pixel of a mask is white, whatever the resizing left of it."""


def shares_of(
    options: RestoreOptions, width: int, height: int, covered: tuple[int, int], padded: Sequence[int], factor: int
) -> Tensor | None:
    """How much of each latent pixel the regions with dials have, (R, h, w) in [0, 1]; None where there are none.

    Where several lie on one another the later has it; what is left to 1 is nobody's.

    Args:
        options: that name the regions.
        width, height: of the photo.
        covered, padded: as in ``mask_of``.
        factor: pixels of the picture per latent pixel, along one side.

    Raises:
        OptionError: a mask is no picture or has another shape, or a rectangle lies outside.
    """
    regions = [each for each in split_regions(options.region) if each.dials]
    if not regions:
        return None
    here = max(1, round(covered[0] / factor)), max(1, round(covered[1] / factor))
    whole = [math.ceil(side / factor) for side in padded]
    edge = round(options.region_edge * covered[1] / (width * options.scale) / factor)
    left, found = torch.ones(*whole), list[Tensor]()
    for region in reversed(regions):
        if isinstance(region.area, Rectangle):
            place = _covered(region.area.within(width, height), *here, slice(0, here[0]))
        else:
            place = mask_pixels("region", region.area, width, height)
        share = softened(spread(place, here, whole), edge)
        found.append(share * left)
        left = left * (1 - share)
    return torch.stack(found[::-1])


@dataclass(frozen=True)
class Kept:
    """Which pixels of a result stay those of the input, or of the clean preview."""

    regions: tuple[Region, ...]
    edge: int
    """Pixels of the result over which what stays fades outside of its region."""
    photo: tuple[int, int]
    """(height, width) of it."""
    size: tuple[int, int]
    """(height, width) of the result."""

    @staticmethod
    def of(options: RestoreOptions, photo: tuple[int, int], size: tuple[int, int]) -> Kept | None:
        """None where all is treated."""
        found = tuple(each for each in split_regions(options.region) if each.keep)
        return Kept(found, options.region_edge, photo, size) if found else None

    def put_on(
        self, made: Picture, own: Callable[[slice], Tensor], preview: Callable[[slice], Tensor], top: int = 0
    ) -> Picture:
        """A result, or a band of it that begins at a row, with what stays: to the bit within regions, mixed around.

        ``own`` and ``preview`` give rows of the whole, in the channels and at the size of the result.
        """
        pixels, rows = made.pixels, slice(top, top + made.height)
        for keep, source in zip(KEEPS[::-1], (preview, own), strict=True):
            if (weight := self.weight(keep, rows)) is not None:
                pixels = torch.lerp(pixels, source(rows), weight)  # whose ends are exact
        return replace(made, pixels=pixels)

    def weight(self, keep: str, rows: slice) -> Tensor | None:
        """(rows, W) in [0, 1], how much stays of ``input`` or ``preview``; None where nothing of these rows does."""
        near = slice(max(0, rows.start - 2 * self.edge), min(self.size[0], rows.stop + 2 * self.edge))
        found = torch.zeros(near.stop - near.start, self.size[1])
        for region in self.regions:
            if region.keep == keep and not region.only:
                found = torch.maximum(found, self._place(region, near))
        only = [each for each in self.regions if each.only and each.keep == keep]
        if only:
            treated = torch.stack([self._place(each, near) for each in only]).amax(0)
            found = torch.maximum(found, 1 - treated)
        if not bool(found.any()):
            return None
        found = softened(torch.where(found > _WHITE, 1.0, found), self.edge)
        return found[rows.start - near.start : rows.stop - near.start]

    def _place(self, region: Region, rows: slice) -> Tensor:
        if isinstance(region.area, Rectangle):
            return _covered(region.area.within(*self.photo[::-1]), *self.size, rows)
        mask = self._masks[region.area]
        down, across = Resampling(mask.shape[0], self.size[0]), Resampling(mask.shape[1], self.size[1])
        found = mask[down.needed(rows)]
        if mask.shape[0] != self.size[0]:
            found = down.weights(rows) @ found
        if mask.shape[1] != self.size[1]:
            found = found @ across.weights(slice(0, self.size[1])).T
        down_at, across_at = _nearest(mask.shape[0], self.size[0], rows), _nearest(mask.shape[1], self.size[1])
        white = mask[down_at][:, across_at] > _WHITE  # resampling would take the rims of white pixels for grey
        return torch.where(white, 1.0, found.clamp(0, 1))

    @cached_property
    def _masks(self) -> dict[str, Tensor]:
        height, width = self.photo
        return {name: mask_pixels("region", name, width, height) for each in self.regions if (name := each.mask)}


def _nearest(size: int, result: int, window: slice | None = None) -> Tensor:
    """Which of ``size`` pixels is nearest to each of a window of so many."""
    at = torch.arange(result)[window or slice(None)]
    return ((at + 0.5) * (size / result)).long().clamp(max=size - 1)


def _covered(place: tuple[float, float, float, float], height: int, width: int, rows: slice) -> Tensor:
    """(rows, W): how much of each pixel a rectangle (left, top, right, bottom), in shares of the sides, covers."""
    left, top, right, bottom = place

    def along(first: float, last: float, size: int, start: int, stop: int) -> Tensor:
        at = torch.arange(start, stop, dtype=torch.float64)
        ends = torch.full_like(at, last * size), torch.full_like(at, first * size)
        return (torch.minimum(at + 1, ends[0]) - torch.maximum(at, ends[1])).clamp(0, 1).float()

    return torch.outer(along(top, bottom, height, rows.start, rows.stop), along(left, right, width, 0, width))
