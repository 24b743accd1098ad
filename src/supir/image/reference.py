"""What the public code does to a picture before and after the network, quirks included (reference section 9).

Used by the `reference` preset and its parity tests; our own way is `working_size`, `resize` and `Picture`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image


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
    from PIL import Image

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
    from PIL import Image

    resized = torch.nn.functional.interpolate(
        pixels[None].float(), (output_height, output_width), mode="bicubic", align_corners=False
    )[0]
    values = (resized.permute(1, 2, 0) * 127.5 + 127.5).cpu().numpy().clip(0, 255).astype(np.uint8)
    return Image.fromarray(values)
