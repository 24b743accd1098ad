"""Between a picture as it came and the pixels that the networks work on, in our way and in the public code's.

The public code's (reference section 9), quirks included, is that of the `reference` preset and its parity tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from supir.errors import OptionError
from supir.image.grain import Grain, grain_of
from supir.image.picture import Picture, from_pil, luma, reader_of, to_pil
from supir.image.reading import read
from supir.image.sizes import pad_to_multiple, resize
from supir.image.toning import Toning, toning_of_pixels
from supir.image.transparency import filled
from supir.image.working import working_size
from supir.options import RestoreOptions

_MAX_REFERENCE_AREA = 16
"""Squares of min_size that a picture may be enlarged to as the public code does it: strips of up to 1 to 16."""

PictureLike = str | Path | Image.Image | Picture


def as_picture(picture: PictureLike, *, salvage: bool = False) -> Picture:
    """Whatever a user hands over, as a ``Picture``; of a damaged file, with ``salvage``, what is there."""
    if isinstance(picture, Picture):
        return picture
    if isinstance(picture, Image.Image):
        return from_pil(picture)
    return read(picture, salvage=salvage)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A picture as the networks take it."""

    pixels: Tensor
    """(3, H, W) at working size, both sides a multiple."""
    covered: tuple[int, int]
    """(height, width) of it that the photo covers; the rest is mirrored."""
    enlargement: float
    """How many times larger the photo is there than it came; endless where a model has enlarged it."""
    finish: Callable[[Tensor], Picture]
    """Makes a picture of the result, which is used up: clamped where it lies, since large pictures are large."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What the record says of how it was taken."""
    grain: Grain | None = None
    """What of the photo's own lies on the result; None where none is asked for, or found."""
    options: RestoreOptions

    def result(self, pixels: Tensor) -> Picture:
        """As ``finish``, with the grain that is asked for."""
        return with_grain(self.finish(pixels), self.grain, self.options)


def fitted(
    picture: Picture, options: RestoreOptions, multiple: int, enlarge: Callable[[Tensor], Tensor] | None = None
) -> Fitted:
    """The picture at working size, and what makes a picture of the result.

    One without colours of its own is shown to the networks in grey, and gets none from them (see ``toning``); but not
    with the public code's quirks.

    ``enlarge`` makes (3, H, W) in [-1, 1] larger before it is resized; it is asked where working size is above the
    photo's.
    """
    if options.reference_quirks:
        return _fitted_as_reference(picture, options, enlarge)
    shown = _shown(picture)
    toning = None if picture.grey else toning_of_pixels(shown)
    size = working_size(picture.width, picture.height, options.scale, options.min_size, multiple)

    def unpad(pixels: Tensor) -> Picture:
        cropped = pixels[:, : size.height, : size.width].cpu().clamp_(-1, 1)
        if toning is not None:
            cropped = luma(cropped)
        found = resize(cropped, size.output_height, size.output_width)
        return picture.with_pixels(found if toning is None else toning.coloured(found, found.shape[-2:]))

    grain = None
    if options.keep_grain:
        grain = grain_of(reader_of(shown), picture.height, picture.width)
    grey = shown if toning is None else luma(shown)
    colours = grey.expand(3, -1, -1)
    unneeded = enlarge is not None and size.height <= picture.height
    if enlarge is not None and not unneeded:
        colours = enlarge(colours)
    pixels = resize(colours, size.height, size.width)
    padded = pad_to_multiple(pixels, multiple)
    notes = notes_of(toning, grain, options) | ({"first": "not asked, since nothing is enlarged"} if unneeded else {})
    covered = size.height, size.width
    made = math.inf if enlarge is not None and not unneeded else size.height / picture.height
    return Fitted(
        pixels=padded, covered=covered, enlargement=made, finish=unpad, notes=notes, grain=grain, options=options
    )


def _fitted_as_reference(
    picture: Picture, options: RestoreOptions, enlarge: Callable[[Tensor], Tensor] | None
) -> Fitted:
    _check_reference_area(picture, options)
    opaque = replace(picture, pixels=_shown(picture), alpha=None)
    stretched, reference = reference_preprocess(to_pil(opaque), options.scale, options.min_size)
    if enlarge is not None and stretched.shape[-2] > picture.height:
        stretched = resize(enlarge(opaque.rgb), *stretched.shape[-2:])

    def cut_to_integers(pixels: Tensor) -> Picture:
        saved = reference_postprocess(pixels, reference.output_height, reference.output_width)
        return picture.with_pixels(from_pil(saved).pixels)

    grain = None
    if options.keep_grain:
        grain = grain_of(reader_of(opaque.pixels), picture.height, picture.width)
    notes = notes_of(None, grain, options)
    covered = stretched.shape[-2], stretched.shape[-1]
    asked = enlarge is not None and stretched.shape[-2] > picture.height
    made = math.inf if asked else stretched.shape[-2] / picture.height
    return Fitted(
        pixels=stretched,
        covered=covered,
        enlargement=made,
        finish=cut_to_integers,
        notes=notes,
        grain=grain,
        options=options,
    )


def notes_of(toning: Toning | None, grain: Grain | None, options: RestoreOptions) -> dict[str, str]:
    """What the record says of a picture as it came."""
    found = {} if toning is None else toning.note
    if options.keep_grain:
        found |= {"grain": "none found"} if grain is None else grain.note(options.keep_grain)
    return found


def with_grain(
    picture: Picture, grain: Grain | None, options: RestoreOptions, height: int = 0, top: int = 0
) -> Picture:
    """With as much of its photo's grain as is asked for; ``height`` and ``top`` as in ``Grain.put_on``."""
    if grain is None:
        return picture
    return grain.put_on(picture, options.keep_grain, options.seed, height=height, top=top)


def _shown(picture: Picture) -> Tensor:
    """The pixels without the colours that its transparency hides."""
    return picture.pixels if picture.alpha is None else filled(picture.pixels, picture.alpha)


def _check_reference_area(picture: Picture, options: RestoreOptions) -> None:
    """The public code enlarges the shorter side to min_size whatever the longer becomes: refuse what never ends."""
    size = reference_size(picture.width, picture.height, options.scale, options.min_size)
    asked = size.output_width * size.output_height
    if size.width * size.height > max(2 * asked, _MAX_REFERENCE_AREA * options.min_size**2):
        raise OptionError(
            f"{picture.width} x {picture.height} pixels would be worked on at {size.width} x {size.height} with"
            f" reference_quirks and min_size {options.min_size}; choose another preset or a smaller min_size"
        )


class ReferenceSize(NamedTuple):
    """What `reference_size` gives; in pixels."""

    height: int
    """Processing height, a multiple of 64."""
    width: int
    output_height: int
    """Height of the saved picture."""
    output_width: int


def reference_size(
    width: int, height: int, upscale: float = 1, min_size: int = 1024, fix_resize: int | None = None, multiple: int = 64
) -> ReferenceSize:
    """The batch program's sizes: each side rounded to the multiple on its own, half to even, so the aspect shifts a
    little.
    """
    scaled_width, scaled_height = width * upscale, height * upscale
    output_width, output_height = round(scaled_width), round(scaled_height)
    if min(scaled_width, scaled_height) < min_size:
        factor = min_size / min(scaled_width, scaled_height)
        scaled_width, scaled_height = scaled_width * factor, scaled_height * factor
    if fix_resize is not None:
        factor = fix_resize / min(scaled_width, scaled_height)
        scaled_width, scaled_height = scaled_width * factor, scaled_height * factor
        output_width, output_height = round(scaled_width), round(scaled_height)
    rounded = [int(np.round(side / multiple)) * multiple for side in (scaled_height, scaled_width)]
    return ReferenceSize(rounded[0], rounded[1], output_height, output_width)


def reference_preprocess(
    image: Image.Image, upscale: float = 1, min_size: int = 1024, fix_resize: int | None = None
) -> tuple[Tensor, ReferenceSize]:
    """The batch program's picture in: Pillow's bicubic in 8 bit, alpha dropped after the resize.

    Args:
        image: RGB or RGBA; others are converted to RGB first, where the public code fails.
        upscale: output side / input side.
        min_size: the processing size's shorter side is at least this.
        fix_resize: the shorter side is this (512 for the captioner).

    Returns:
        ((3, H, W) float32 in [-1, 1], the sizes).
    """
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGB")
    size = reference_size(*image.size, upscale, min_size, fix_resize)
    resized = np.asarray(image.resize((size.width, size.height), Image.Resampling.BICUBIC))
    values = torch.from_numpy(resized.transpose(2, 0, 1)[:3].copy())
    return (values.double() / 255 * 2 - 1).float(), size


def reference_postprocess(pixels: Tensor, output_height: int, output_width: int) -> Image.Image:
    """The batch program's picture out: bicubic without antialias, then cut to 8 bit, not rounded.

    Args:
        pixels: (3, H, W), about [-1, 1], any float type.
        output_height: of `reference_size`.
        output_width: of `reference_size`.
    """
    resized = torch.nn.functional.interpolate(
        pixels[None].float(), (output_height, output_width), mode="bicubic", align_corners=False
    )[0]
    values = (resized.permute(1, 2, 0) * 127.5 + 127.5).cpu().numpy().clip(0, 255).astype(np.uint8)
    return Image.fromarray(values)
