"""Masks: pictures that say where, white where and black where not; files, or small ones written as text."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from supir.errors import ImageError, OptionError
from supir.image.opening import read_size
from supir.image.picture import luma
from supir.image.reading import read
from supir.image.sizes import mirrored_indices, resize, shapes_apart
from supir.options import RestoreOptions
from supir.options.regions import INLINE, split_regions

INLINE_PIXELS = 4_000_000
"""Of a mask that is written as text: a few bytes could be made into gigabytes."""


def masks_in(options: RestoreOptions) -> list[tuple[str, str]]:
    """(the option, the mask) of each that the options name and that acts."""
    blend = [("blend_mask", options.blend_mask)] if options.blend_mask and options.blend else []
    return blend + [("region", each.mask) for each in split_regions(options.region) if each.mask]


def check_masks(options: RestoreOptions, width: int, height: int) -> None:
    """See that every mask is there and has the shape of a photo of this size; of files the header alone is read.

    Raises:
        OptionError: one is no picture, or has another shape.
    """
    for option, name in masks_in(options):
        with _file(option, name) as path:
            try:
                size = read_size(path)
            except ImageError as error:
                raise _unreadable(option, name, path, error) from error
            _check_shape(option, size, (width, height))


def mask_pixels(option: str, name: str, width: int, height: int) -> Tensor:
    """(H, W) from 0, black, to 1, white, at the mask's own size.

    Args:
        option: which names it, for messages.
        name: a file, or bytes as ``supir.options.regions`` says.
        width, height: of the photo, whose shape it must have.

    Raises:
        OptionError: it is no picture, or has another shape.
    """
    with _file(option, name) as path:
        try:
            found = read(path)
        except ImageError as error:
            raise _unreadable(option, name, path, error) from error
    _check_shape(option, (found.width, found.height), (width, height))
    grey = luma(found.pixels.expand(3, -1, -1))[0].add_(1).mul_(0.5)
    return grey if found.alpha is None else grey * found.alpha[0]


def mask_of(
    options: RestoreOptions, width: int, height: int, covered: tuple[int, int], padded: Sequence[int]
) -> Tensor | None:
    """The picture that ``blend_mask`` names, (H, W) from 0, black, to 1, white, at working size; None where none acts.

    Args:
        options: with the name of its file.
        width, height: of the photo, whose shape it must have.
        covered: (height, width) that the photo takes at working size.
        padded: (height, width) of all; beyond the photo the mask is mirrored as the photo is.

    Raises:
        OptionError: it is no picture, or has another shape.
    """
    if not options.blend_mask or not options.blend:
        return None
    return spread(mask_pixels("blend_mask", options.blend_mask, width, height), covered, padded)


def spread(mask: Tensor, covered: tuple[int, int], padded: Sequence[int]) -> Tensor:
    """(H, W) at a size that the photo covers, mirrored beyond it to all of another, as the photo is."""
    found = resize(mask[None], *covered, limits=(0.0, 1.0))[0]
    rows, columns = (mirrored_indices(0, side, size) for side, size in zip(padded, covered, strict=True))
    return found[rows][:, columns]


def softened(mask: Tensor, edge: int) -> Tensor:
    """(H, W) in [0, 1] as it is where it is 1, and falling to 0 over ``edge`` pixels outside."""
    grow = (edge + 1) // 2
    if grow < 1:
        return mask
    found = mask[None, None]
    for kernel in ((2 * grow + 1, 1), (1, 2 * grow + 1)):
        found = torch.nn.functional.max_pool2d(found, kernel, 1, (kernel[0] // 2, kernel[1] // 2))
    for radius in filter(None, (grow // 2, grow - grow // 2)):  # two boxes: round where one would have corners
        for kernel in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
            found = torch.nn.functional.avg_pool2d(
                found, kernel, 1, (kernel[0] // 2, kernel[1] // 2), count_include_pad=False
            )
    return torch.maximum(found[0, 0], mask)


@contextmanager
def _file(option: str, name: str) -> Iterator[Path]:
    """Where the mask lies; one that is written as text is put into a file meanwhile."""
    if not name.startswith(INLINE):
        yield Path(name)
        return
    try:
        data = base64.b64decode(name.removeprefix(INLINE), validate=True)
    except (binascii.Error, ValueError):
        raise OptionError(f"{option}: what follows {INLINE} is not base64") from None
    with tempfile.TemporaryDirectory(prefix="supir-") as folder:
        path = Path(folder) / "mask.png"
        path.write_bytes(data)
        try:
            width, height = read_size(path)
        except ImageError as error:
            raise _unreadable(option, name, path, error) from error
        if width * height > INLINE_PIXELS:
            raise OptionError(
                f"{option}: a mask of {width} x {height} pixels is written as text; {INLINE_PIXELS / 1e6:g} megapixels"
                " are allowed, and any mask may be smaller than its photo"
            )
        yield path


def _unreadable(option: str, name: str, path: Path, error: Exception) -> OptionError:
    shown = "the mask that is written as text" if name.startswith(INLINE) else name
    return OptionError(f"{option}: {str(error).replace(str(path), shown)}")


def _check_shape(option: str, mask: tuple[int, int], photo: tuple[int, int]) -> None:
    if shapes_apart(mask, photo):
        raise OptionError(
            f"{option} is {mask[0]} x {mask[1]} pixels and the photo {photo[0]} x {photo[1]}; it must have the"
            " photo's shape, at any size"
        )
