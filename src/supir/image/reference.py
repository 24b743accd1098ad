"""What the public code does to a picture before and after the network, quirks included (reference section 9).

Used by the `reference` preset and its parity tests; our own way is `working_size`, `resize` and `Picture`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from supir.errors import MissingExtraError

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "ReferenceSize",
    "interactive_preprocess",
    "interactive_resize",
    "reference_postprocess",
    "reference_preprocess",
    "reference_size",
]


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


def interactive_resize(
    image: npt.NDArray[np.uint8],
    upscale: float = 1,
    min_size: int = 1024,
    fix_resize: int | None = None,
    multiple: int = 32,
) -> npt.NDArray[np.uint8]:
    """The interactive demo's resize of (H, W, 3): Lanczos if `upscale` is above 1, else by area, also when min_size
    enlarges.

    With `fix_resize` (its preview: 512, multiple 64) the shorter side becomes that, and the factor it takes decides
    the filter.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    cv2 = _opencv()
    height, width = image.shape[:2]
    if fix_resize is not None:
        upscale, min_size = fix_resize / min(height, width), 0
    size = reference_size(width, height, upscale, min_size, multiple=multiple)
    interpolation = cv2.INTER_LANCZOS4 if upscale > 1 else cv2.INTER_AREA
    resized: npt.NDArray[np.uint8] = cv2.resize(image, (size.width, size.height), interpolation=interpolation)
    return resized


def interactive_preprocess(
    image: npt.NDArray[np.uint8], upscale: float = 1, min_size: int = 1024, gamma: float = 1.0
) -> Tensor:
    """The interactive demo's picture in: `interactive_resize`, then the gamma on [0, 1]; (3, H, W) float32 in [-1, 1].

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    unit = interactive_resize(image, upscale, min_size).astype(np.float64) / 255
    return torch.from_numpy(np.power(unit, gamma).transpose(2, 0, 1) * 2 - 1).float()


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("opencv-python-headless", "train", "the interactive demo's resize") from error
    return cv2
