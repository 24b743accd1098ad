"""Between picture bytes and the pixels of a data set: 8-bit sRGB, (H, W, 3) uint8, upright.

Files of strangers are read by `supir.image.read`. `decode` reads what lies in our own shards, which may be damaged; it
uses Pillow, since libvips stands still in a forked process (a DataLoader's worker) when its parent has used it before.
"""

from __future__ import annotations

import functools
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips
import torch
from PIL import Image, ImageCms

from supir.errors import ImageError, ImageReadError, ImageTooLargeError
from supir.image import Picture, read, to_pil
from supir.image.opening import quiet_libvips

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""

_ORIENTATION = 0x0112
_SAME_COLOUR = 2
"""Grey levels by which a profile may differ from sRGB and still count as it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A photograph of whatever kind, as the pixels of a data set."""

    pixels: Pixels
    """(H, W, 3) sRGB, upright, transparency laid on white."""
    kind: str
    """JPEG, PNG, WebP or TIFF."""
    plain: bool
    """The file's own bytes decode to these pixels in any reader: they can be stored as they are."""
    quantisation: tuple[int, ...] | None
    """The luminance quantisation table of a JPEG, 64 numbers in any order."""
    exif: bytes | None
    xmp: bytes | None


def load(path: str, data: bytes, max_pixels: int) -> Loaded:
    """A picture file, of which the bytes are known; one of more than ``max_pixels`` is not decoded.

    Raises:
        ImageReadError: as `supir.image.read`.
        ImageTooLargeError: likewise.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of several pages the first is meant
        picture = read(path, max_pixels=max_pixels)
        kind, plain, table, profile = _header(data)
    return Loaded(
        pixels=srgb(picture),
        kind=kind,
        plain=plain
        and picture.bits == 8
        and picture.damage is None
        and picture.alpha is None
        and _is_srgb(picture.icc)
        and picture.icc == profile,
        quantisation=table,
        exif=picture.exif,
        xmp=picture.xmp,
    )


def decode(data: bytes, max_pixels: int) -> Pixels:
    """The picture of a shard, (H, W, 3), from a JPEG, PNG or WebP of 8 bits, grey or RGB; grey is repeated.

    Raises:
        ImageReadError: damaged, or nothing that a shard holds.
        ImageTooLargeError: more than `max_pixels`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width} x {image.height}"
                raise ImageTooLargeError(f"{size} pixels; allowed are {max_pixels} (max_pixels)")
            if image.mode not in ("L", "RGB"):
                raise ImageReadError(f"mode {image.mode}; allowed are L and RGB")
            return np.asarray(image.convert("RGB"))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(str(error)) from error
    except Exception as error:  # what damaged bytes make of a decoder is not foreseen in full
        raise ImageReadError(f"damaged or truncated: {str(error) or type(error).__name__}") from error


def encode(pixels: Pixels) -> bytes:
    """The pixels as PNG bytes, without loss; the same bytes for the same pixels."""
    quiet_libvips()
    return bytes(pyvips.Image.new_from_array(pixels).pngsave_buffer(compression=4, keep="none"))


def reduced(pixels: Pixels, factor: int) -> Pixels:
    """(H // factor, W // factor, 3): each pixel the mean of a square; what does not fill one is cut off."""
    height, width = (size // factor for size in pixels.shape[:2])
    if factor == 1 or 0 in (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels[: height * factor, : width * factor]).reduce(factor))


def _header(data: bytes) -> tuple[str, bool, tuple[int, ...] | None, bytes | None]:
    """(kind, may it be stored as it is, luminance quantisation table, profile), as Pillow sees the first frame."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP", "TIFF")) as image:
            kind = {"WEBP": "WebP", "MPO": "JPEG"}.get(str(image.format), str(image.format))
            upright = image.getexif().get(_ORIENTATION, 1) == 1
            single = image.format == "MPO" or getattr(image, "n_frames", 1) == 1
            tables: dict[int, Any] = getattr(image, "quantization", None) or {}
            plain = kind != "TIFF" and upright and single and image.mode in ("RGB", "L")
            return kind, plain, tuple(tables[0]) if 0 in tables else None, image.info.get("icc_profile")
    except Exception:  # libvips read it; whatever Pillow dislikes about it, it is then stored anew
        return {b"\xff\xd8": "JPEG", b"\x89P": "PNG", b"RI": "WebP"}.get(data[:2], "TIFF"), False, None, None


def srgb(picture: Picture) -> Pixels:
    """A picture as sRGB, transparency laid on white."""
    if picture.alpha is not None:
        image = to_pil(picture)
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert(image.mode[:-1])
    else:  # as to_pil, in a third of the time: most pictures go this way
        values = picture.pixels.add(1).mul_(127.5).round_().to(torch.uint8)
        image = Image.fromarray((values[0] if picture.grey else values.permute(1, 2, 0)).contiguous().numpy())
    if not _is_srgb(picture.icc):
        image = _converted(image, picture.icc)
    return np.asarray(image.convert("RGB"))


def _converted(image: Image.Image, profile: bytes | None) -> Image.Image:
    """To sRGB; unchanged when the profile cannot be used."""
    target = ImageCms.createProfile("sRGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        turned = ImageCms.profileToProfile(image, source, target, renderingIntent=intent, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return image if turned is None else turned


@functools.lru_cache(maxsize=32)
def _is_srgb(profile: bytes | None) -> bool:
    """Whether the profile changes no colour of a coarse cube by more than `_SAME_COLOUR`; what it is called is not
    asked.
    """
    if profile is None:
        return True
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    mode = "L" if profile[16:20] == b"GRAY" else "RGB"
    before = Image.fromarray(cube).convert(mode)
    after = _converted(before, profile).convert("RGB")
    difference = np.asarray(after).astype(int) - np.asarray(before.convert("RGB"))
    return bool(np.abs(difference).max() <= _SAME_COLOUR)
