"""Pictures that need not fit into memory: read by windows at working size, handed to the writer band by band."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from supir.image.grain import Grain, grain_of
from supir.image.picture import Picture, from_integers, luma
from supir.image.reading import decoded_into, turned
from supir.image.sizes import Box, Resampling, mirrored_indices
from supir.image.toning import Toning, toning_of
from supir.image.transparency import Backdrop
from supir.image.working import WorkingSize
from supir.tensors.arrays import LazyArray

LARGE = 12_000_000
"""Pixels of the working size above which a file's pixels stay on disk: 150 MB for each picture held otherwise."""


@contextmanager
def open_large(path: Path, folder: Path, *, salvage: bool = False) -> Iterator[LargePicture]:
    """Decode a picture file into a nameless file of integers in a folder, where it lies until the context ends.

    Raises:
        ImageReadError, ImageTooLargeError, OptionError: as ``read``.
        ImageWriteError: there is no room for the integers.
    """
    with tempfile.TemporaryFile(dir=folder) as integers:
        shape, turn, about = decoded_into(path, integers, salvage=salvage)
        yield LargePicture(integers, shape, turn, about)


@dataclass(frozen=True, eq=False)
class LargePicture:
    """A picture whose pixels are in an open file, and all that came with them."""

    file: BinaryIO
    stored: tuple[int, int, int]
    """(H, W, C) before the turn."""
    turn: int
    """EXIF orientation, 1 to 8."""
    frame: Picture
    """A picture of one pixel that carries what the large one does: profile, EXIF, XMP, bits, grey, whether alpha."""

    @property
    def height(self) -> int:
        """In pixels, upright."""
        return int(self._values.shape[0])

    @property
    def width(self) -> int:
        """In pixels, upright."""
        return int(self._values.shape[1])

    @property
    def _values(self) -> npt.NDArray[Any]:
        """(H, W, C) integers, upright, mapped from the file; taken anew each time, so that little stays mapped."""
        kind = np.uint16 if self.frame.bits == 16 else np.uint8
        return turned(np.memmap(self.file, kind, "r", shape=self.stored), self.turn)

    def _reader(self, channels: slice) -> Callable[[slice, slice], Tensor]:
        """What gives rows and columns of these channels, (C, rows, columns) float32 in [0, 1]."""
        # A copy in any case: what is mapped to be read is nothing for torch.
        return lambda rows, columns: from_integers(np.array(self._values[rows, columns, channels], order="C"))

    @cached_property
    def _backdrop(self) -> Backdrop | None:
        """What fills the hidden pixels, computed band by band; None without alpha."""
        if self.frame.alpha is None:
            return None
        side = Backdrop.side_of(self.height, self.width)
        rows, columns, read = side * math.ceil(64 / side), slice(0, self.width), self._reader(slice(None))

        def band(top: int) -> tuple[Tensor, Tensor]:
            part = read(slice(top, min(top + rows, self.height)), columns)
            return part[:-1], part[-1:]

        return Backdrop.of(map(band, range(0, self.height, rows)), side)

    def _shown(self, rows: slice, columns: slice) -> Tensor:
        """Rows and columns of the colours, (C, rows, columns) in [0, 1], without those that transparency hides."""
        part = self._reader(slice(None))(rows, columns)
        if self._backdrop is None:
            return part
        return self._backdrop.behind(part[:-1], part[-1:], rows, columns)

    @cached_property
    def toning(self) -> Toning | None:
        """As ``fitted`` finds it; None of a picture with colours, and of one in grey."""
        return None if self.frame.grey else toning_of(self._shown, self.height, self.width)

    @cached_property
    def grain(self) -> Grain | None:
        """Its own."""
        colours = 1 if self.frame.grey else 3
        return grain_of(lambda rows, columns: self._shown(rows, columns)[:colours], self.height, self.width)

    def cut(self, box: Box) -> Picture:
        """As ``Picture.cut``: a part that fits into memory."""
        left, top, width, height = box
        part = self._reader(slice(None))(slice(top, top + height), slice(left, left + width))
        colours = 1 if self.frame.grey else 3
        alpha = None if self.frame.alpha is None else part[-1:].contiguous()
        return replace(self.frame, pixels=(part[:colours] * 2 - 1).contiguous(), alpha=alpha)

    def at_working_size(self, size: WorkingSize, device: torch.device | str) -> LazyArray:
        """What ``fitted`` gives, (1, 3, padded height, padded width) in [-1, 1], computed window by window."""
        down, across = Resampling(self.height, size.height), Resampling(self.width, size.width)
        toned = self.toning is not None

        def given(rows: slice, columns: slice) -> Tensor:
            return luma(self._shown(rows, columns)) if toned else self._shown(rows, columns)

        def window(top: int, bottom: int, left: int, right: int) -> Tensor:
            rows = mirrored_indices(top, bottom, size.height)
            columns = mirrored_indices(left, right, size.width)
            pixels = _resampled(given, down, across, _extent(rows), _extent(columns))
            pixels = (pixels * 2 - 1).clamp_(-1, 1)[:, rows - rows.min()][:, :, columns - columns.min()]
            return pixels.expand(3, -1, -1)[None].to(device)

        return LazyArray((1, 3, size.padded_height, size.padded_width), window)

    def resized_band(self, height: int, width: int, rows: slice) -> Picture:
        """Rows of the whole picture as it is at another size, in pixels; transparency laid on white."""
        colours = slice(0, 1 if self.frame.grey else 3)

        def on_white(rows: slice, columns: slice) -> Tensor:
            pixels = self._reader(colours)(rows, columns)
            if self.frame.alpha is None:
                return pixels
            return torch.lerp(torch.ones(()), pixels, self._reader(slice(-1, None))(rows, columns))

        down, across = Resampling(self.height, height), Resampling(self.width, width)
        pixels = _resampled(on_white, down, across, rows, slice(0, width))
        return replace(self.frame, pixels=(pixels * 2 - 1).clamp_(-1, 1), alpha=None)

    def band(self, size: WorkingSize, pixels: Tensor, top: int) -> Picture:
        """Rows (3, rows, W) of a result in the photo's own channels and tones, without transparency."""
        if self.toning is not None:
            pixels = self.toning.coloured(luma(pixels), (size.output_height, size.output_width), top)
        return replace(self.frame, alpha=None).with_pixels(pixels)

    def own_band(self, size: WorkingSize, rows: slice) -> Tensor:
        """Rows of the photo itself at the result's size, (3 or 1, rows, W) in [-1, 1]."""
        down, across = Resampling(self.height, size.output_height), Resampling(self.width, size.output_width)
        read = self._reader(slice(0, 1 if self.frame.grey else 3))
        return (_resampled(read, down, across, rows, slice(0, size.output_width)) * 2 - 1).clamp_(-1, 1)

    def with_bands(
        self, size: WorkingSize, found: Iterable[Tensor], grained: Callable[[Picture, int], Picture]
    ) -> Iterator[Picture]:
        """The restored picture from top to bottom: of bands (3, rows, W) at the output's size, as ``with_pixels``.

        ``grained`` is given each band and its first row.
        """
        top = 0
        down, across = Resampling(self.height, size.output_height), Resampling(self.width, size.output_width)
        for pixels in found:
            bottom = top + pixels.shape[1]
            band = grained(self.band(size, pixels, top), top)
            if self.frame.alpha is not None:
                whole = slice(0, size.output_width)
                alpha = _resampled(self._reader(slice(-1, None)), down, across, slice(top, bottom), whole)
                band = replace(band, alpha=alpha.clamp_(0, 1))
            yield band
            top = bottom

    def part(self, size: WorkingSize, rows: slice, columns: slice, made: Tensor, first: tuple[int, int]) -> Picture:
        """Rows and columns of a result, in the photo's own channels and tones, with its transparency.

        Args:
            size: of the whole.
            rows: of the output.
            columns: likewise.
            made: (3, h, w) at working size, near [-1, 1]: these and what they are resampled from.
            first: (row, column) at working size at which it begins.
        """
        (top, left), tones = first, self.toning
        made = made.clamp(-1, 1) if tones is None else luma(made.clamp(-1, 1))

        def read(rows: slice, columns: slice) -> Tensor:
            return made[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

        down, across = Resampling(size.height, size.output_height), Resampling(size.width, size.output_width)
        found = _resampled(read, down, across, rows, columns).clamp(-1, 1)
        if tones is not None:
            wide = torch.zeros(1, found.shape[1], size.output_width)  # tones may drift across the whole picture
            wide[..., columns] = found
            found = tones.coloured(wide, (size.output_height, size.output_width), rows.start)[..., columns]
        picture = replace(self.frame, alpha=None).with_pixels(found.contiguous())
        if self.frame.alpha is None:
            return picture
        down, across = Resampling(self.height, size.output_height), Resampling(self.width, size.output_width)
        alpha = _resampled(self._reader(slice(-1, None)), down, across, rows, columns)
        return replace(picture, alpha=alpha.clamp_(0, 1))


def _extent(indices: Tensor) -> slice:
    return slice(int(indices.min()), int(indices.max()) + 1)


def _resampled(
    read: Callable[[slice, slice], Tensor], down: Resampling, across: Resampling, rows: slice, columns: slice
) -> Tensor:
    """Rows and columns (C, rows, columns) of the resampled picture, of which only what they need is read."""
    part = read(down.needed(rows), across.needed(columns))
    if down.size != down.result:
        part = down.weights(rows) @ part
    return part if across.size == across.result else part @ across.weights(columns).T
