"""Pictures for screens: files that every browser shows, and small pictures of a restoration under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import torch
from torch import Tensor

from supir.errors import ImageWriteError
from supir.image.opening import read_size
from supir.image.picture import Picture, assemble, from_integers, luma
from supir.image.reading import decode, header_of, read, turned
from supir.image.toning import Toning, toning_of_pixels
from supir.image.working import working_size
from supir.image.writing import store
from supir.options import RestoreOptions

_QUALITY = 85
_WHITE = 255


def read_frame(path: Path | str | Picture) -> tuple[tuple[int, int], Picture]:
    """((width, height) upright, a picture of one pixel that carries the colour space). Only the header is read.

    Raises:
        ImageReadError, ImageTooLargeError: as ``read``.
    """
    if isinstance(path, Picture):
        return (path.width, path.height), Picture(pixels=path.pixels[:, :1, :1], icc=path.icc, path=path.path)
    (height, width, num_channels), source = header_of(Path(path))
    frame = assemble(torch.zeros(num_channels, 1, 1), **source.about)
    bare = Picture(pixels=frame.pixels, icc=frame.icc, path=frame.path)
    return (height, width) if source.turn > 4 else (width, height), bare


def read_reduced(path: Path | str, side: int, *, salvage: bool = False) -> Picture:
    """A picture file as ``read`` gives it; one with a longer side than ``side`` pixels in 8 bits, reduced to that.

    It is reduced while it is decoded, so that the size of the file hardly matters for memory.

    Raises:
        ImageReadError, ImageTooLargeError: as ``read``.
    """
    if max(read_size(path)) <= side:
        return read(path, salvage=salvage)

    def reduced(image: Any, bits: int) -> Any:
        small = _in_8_bits(image, bits).thumbnail_image(side, height=side, size="down")
        return np.frombuffer(small.write_to_memory(), np.uint8).reshape(small.height, small.width, small.bands)

    values, source = decode(Path(path), reduced, salvage=salvage)
    upright = np.ascontiguousarray(turned(values, source.turn))
    return assemble(from_integers(upright), **(source.about | {"bits": 8}))


def glimpsed(
    pixels: Tensor,
    size: tuple[int, int],
    frame: Picture,
    options: RestoreOptions,
    multiple: int,
    toning: Toning | None = None,
) -> Picture:
    """A picture of (3, h, w) that shows the whole working size of ``fitted`` at another scale: no padding, no metadata.

    Args:
        pixels: near [-1, 1].
        size: (width, height) of the photo in pixels, upright, as ``read_frame`` gives it.
        frame: likewise.
        options: with which it is restored.
        multiple: of both sides of the working size.
        toning: of the photo, where it has no colours of its own.
    """
    if not options.reference_quirks:  # they stretch, and pad nothing
        work = working_size(*size, options.scale, options.min_size, multiple)
        height, width = pixels.shape[-2:]
        height = max(1, round(height * work.height / work.padded_height))
        pixels = pixels[:, :height, : max(1, round(width * work.width / work.padded_width))]
    if toning is not None:
        pixels = toning.coloured(luma(pixels), pixels.shape[-2:])
    return frame.with_pixels(pixels)


def read_toning(path: Path | str | Picture, side: int, *, salvage: bool = False) -> Toning | None:
    """The toning of a picture; of a file, from its pixels as ``read_reduced`` gives them.

    Raises:
        ImageReadError, ImageTooLargeError: as ``read``.
    """
    picture = path if isinstance(path, Picture) else read_reduced(path, side, salvage=salvage)
    return None if picture.grey else toning_of_pixels(picture.pixels)


def write_shown(source: Path | str, target: Path | str, side: int | None = None) -> None:
    """Write a picture file as every browser shows it: upright, in 8 bits, with its profile, without other metadata.

    From file to file, so that the size hardly matters for memory, unless the photo has a turn.

    Args:
        source: any that ``read`` takes.
        target: a PNG; with ``side`` a JPEG, transparency laid on white.
        side: pixels of the longer side, at most; None leaves the size as it is.

    Raises:
        ImageReadError, ImageTooLargeError, ImageWriteError: as ``read`` and ``write``.
    """
    _, about = header_of(Path(source))
    frame = assemble(torch.zeros(3, 1, 1), **about.about)

    def show(image: Any, bits: int) -> None:
        if about.turn > 1:
            image = image.copy_memory().autorot()  # a file that is read row by row cannot be turned
        image = _in_8_bits(image, bits)
        if frame.icc is not None and image.bands > 2:  # also one that the file says in other words
            image = image.copy()
            image.set_type(pyvips.GValue.blob_type, "icc-profile-data", frame.icc)
        if side is not None:
            image = image.thumbnail_image(side, height=side, size="down")
            image = image.flatten(background=_WHITE) if image.hasalpha() else image
        try:
            store(Path(target), lambda stream: _save(image, stream, small=side is not None))
        except ImageWriteError as error:
            if isinstance(error.__cause__, pyvips.Error):  # of the source, which may be decoded in another way
                raise error.__cause__ from None
            raise

    decode(Path(source), show, salvage=True, quiet=True)


def _in_8_bits(image: Any, bits: int) -> Any:
    grey = image.bands < 3
    if bits == 16:
        image = image.cast("uchar", shift=True)
    return image.copy(interpretation="b-w" if grey else "srgb")


def _save(image: Any, stream: Any, *, small: bool) -> None:
    target, keep = pyvips.Target.new_to_descriptor(stream.fileno()), pyvips.enums.ForeignKeep.ICC
    if small:
        image.jpegsave_target(target, Q=_QUALITY, keep=keep)
    else:
        image.pngsave_target(target, keep=keep)
