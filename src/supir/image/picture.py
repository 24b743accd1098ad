"""`Picture`: the one form in which pictures travel through supir, and its way from and to PIL."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from supir.errors import ImageReadError, ImageWriteError, OptionError
from supir.image.exif import read_exif
from supir.image.profiles import Colours, by_gamma, icc_kind, profile
from supir.image.sizes import Box, resize

if TYPE_CHECKING:
    from PIL import Image

_LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709, on the encoded values


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A picture and what came with it. Never changed in place: make another with `with_pixels` or `replace`."""

    pixels: Tensor
    """(3, H, W), or (1, H, W) if grey; float32 in [-1, 1], in the picture's own colour space, already turned
    upright.
    """
    alpha: Tensor | None = None
    """(1, H, W) float32 in [0, 1], not premultiplied; None where the file has none."""
    icc: bytes | None = None
    """The ICC profile the pixels are in; None means sRGB is assumed."""
    exif: bytes | None = None
    """EXIF block, starting with b"Exif\\0\\0": orientation 1, no thumbnail, no dimensions."""
    xmp: bytes | None = None
    """XMP packet."""
    iptc: bytes | None = None
    """IPTC-IIM records."""
    texts: tuple[tuple[str, str], ...] = ()
    """Comments and other texts, each with its keyword as PNG has them: Comment, Title, Author ..."""
    dpi: tuple[float, float] | None = None
    """Dots an inch, across and down; None where no print size is claimed."""
    bits: int = 8
    """8 or 16 per channel in the file it came from, and in the file that is written."""
    path: Path | None = None
    """The file it came from."""
    damage: str | None = None
    """What was wrong with that file and was passed over; None where nothing was."""

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        if len(shape) != 3 or shape[0] not in (1, 3) or 0 in shape or self.pixels.dtype != torch.float32:
            raise OptionError(
                f"pixels are {self.pixels.dtype} {shape}; allowed is float32 (3, H, W), or (1, H, W) for grey"
            )
        if self.alpha is not None and (tuple(self.alpha.shape) != (1, *shape[1:]) or self.alpha.dtype != torch.float32):
            raise OptionError(
                f"alpha is {self.alpha.dtype} {tuple(self.alpha.shape)}; allowed is float32 {(1, *shape[1:])}"
            )
        if self.bits not in (8, 16):
            raise OptionError(f"bits is {self.bits}; allowed are 8 and 16")

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[-2])

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[-1])

    @property
    def grey(self) -> bool:
        """Whether it has one channel."""
        return self.pixels.shape[0] == 1

    @property
    def rgb(self) -> Tensor:
        """(3, H, W) for a network: grey is repeated (a view, nothing is copied)."""
        return self.pixels.expand(3, -1, -1)

    def cut(self, box: Box) -> Picture:
        """A part of it; all else is kept."""
        left, top, width, height = box
        there = (slice(None), slice(top, top + height), slice(left, left + width))
        alpha = None if self.alpha is None else self.alpha[there].contiguous()
        return replace(self, pixels=self.pixels[there].contiguous(), alpha=alpha)

    def with_pixels(self, pixels: Tensor) -> Picture:
        """The restored picture: new pixels (3 or 1, h, w) of any size, all else kept.

        A grey picture stays grey (luma of the three channels), the alpha is resized to the new size, values are
        clamped to [-1, 1].
        """
        pixels = pixels.detach().to("cpu", torch.float32)
        if self.grey and pixels.shape[0] == 3:
            pixels = luma(pixels)
        height, width = pixels.shape[-2:]
        alpha = None if self.alpha is None else resize(self.alpha, height, width, limits=(0.0, 1.0))
        low, high = pixels.aminmax()  # a large picture that is within its limits already is not copied
        return replace(self, pixels=pixels.clamp(-1, 1) if low < -1 or high > 1 else pixels, alpha=alpha)


def luma(pixels: Tensor) -> Tensor:
    """(1, H, W) of (3, H, W); a pixel of equal channels stays as it is."""
    first = pixels[:1]
    return first + sum(weight * (channel - first) for weight, channel in zip(_LUMA[1:], pixels[1:], strict=True))


Reader = Callable[[slice, slice], Tensor]
"""Gives rows and columns (3 or 1, rows, columns) of a picture, in [0, 1]."""


def reader_of(pixels: Tensor) -> Reader:
    """Of (C, H, W) in [-1, 1]."""
    return lambda rows, columns: pixels[:, rows, columns] * 0.5 + 0.5


def along(curve: Tensor, place: Tensor) -> Tensor:
    """(..., H, W): what a curve (..., knots) is at places (H, W) counted in knots, straight lines between them."""
    last = curve.shape[-1] - 1
    place = place.clamp(0, last)
    below = place.floor().clamp(max=last - 1)
    index = below.long()
    return torch.lerp(curve[..., index], curve[..., index + 1], place - below)


def on_white(picture: Picture) -> Picture:
    """Opaque: laid on white where it is transparent."""
    if picture.alpha is None:
        return picture
    return replace(picture, pixels=torch.lerp(torch.ones(()), picture.pixels, picture.alpha), alpha=None)


def from_integers(values: npt.NDArray[Any]) -> Tensor:
    """(H, W, C) uint8 or uint16 -> (C, H, W) float32 in [0, 1], in one copy."""
    height, width, channels = values.shape
    scale = 1 / 65535 if values.dtype == np.uint16 else 1 / 255
    tensor = torch.empty(channels, height, width)
    tensor.copy_(torch.from_numpy(values).permute(2, 0, 1))
    return tensor.mul_(scale)


def to_integers(picture: Picture, bits: int) -> npt.NDArray[Any]:
    """(H, W, C) uint8 or uint16, rounded to the nearest; alpha is the last channel.

    Raises:
        ImageWriteError: the pixels are not finite.
    """
    top = 2**bits - 1
    alphas = [] if picture.alpha is None else [picture.alpha[0]]
    num_channels = len(picture.pixels) + len(alphas)
    values = np.empty((picture.height, picture.width, num_channels), np.uint8 if bits == 8 else np.uint16)
    for index, plane in enumerate(chain((pixel * 0.5 + 0.5 for pixel in picture.pixels), alphas)):
        if not bool(torch.isfinite(plane).all()):
            raise ImageWriteError("the pixels hold NaN or infinity; nothing was written", picture.path)
        values[..., index] = plane.clamp(0, 1).mul(top).round_().to(torch.int32).numpy()
    return values


def from_pil(image: Image.Image) -> Picture:
    """A PIL image of mode 1, L, LA, I;16, P, PA, RGB, RGBA, RGBX, CMYK or YCbCr; EXIF turn applied, CMYK converted to
    sRGB.

    Raises:
        ImageReadError: another mode (I and F do not say what range they have).
    """
    from PIL import ImageOps

    frames = int(getattr(image, "n_frames", 1))
    if frames > 1:
        warnings.warn(f"{frames} pictures in one; only the current one is taken", UserWarning, stacklevel=2)
    exif = read_exif(image.getexif().tobytes() if len(image.getexif()) else None)
    colours = exif.colours or _said_by_pil(image)
    dpi = image.info.get("dpi") or (0, 0)
    xmp = image.info.get("xmp")
    icc = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if image.mode == "CMYK":
        image, icc = _cmyk_to_srgb(image, icc)
        colours = None
    mode = image.mode
    if mode == "P":
        mode = "RGBA" if "transparency" in image.info else "RGB"
    mode = {"1": "L", "PA": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "I;16L": "I;16", "I;16B": "I;16"}.get(mode, mode)
    if mode not in ("L", "LA", "I;16", "RGB", "RGBA"):
        raise ImageReadError(
            f"a PIL image of mode {mode}; allowed are 1, L, LA, I;16, P, PA, RGB, RGBA, CMYK and YCbCr"
        )
    if mode in ("L", "RGB") and "transparency" in image.info:
        mode += "A"
    values = np.array(image if image.mode.startswith("I;16") else image.convert(mode))
    values = values.astype(values.dtype.newbyteorder("="), copy=False).reshape(*values.shape[:2], -1)
    return assemble(
        from_integers(values), icc=icc, colours=colours, exif=exif.cleaned,
        xmp=xmp if isinstance(xmp, bytes) else None, dpi=(float(dpi[0]), float(dpi[1])) if min(dpi) > 1 else None,
        bits=16 if values.dtype == np.uint16 else 8,
    )  # fmt: skip


def _said_by_pil(image: Image.Image) -> Colours | None:
    """The gamma and primaries of a PNG that PIL has opened."""
    gamma, points = image.info.get("gamma"), image.info.get("chromaticity")
    if "srgb" in image.info or not (gamma or points):
        return None
    return by_gamma(gamma or 0.0, points or ())


def to_pil(picture: Picture) -> Image.Image:
    """A PIL image of mode L, LA, RGB or RGBA, 8 bit, with its ICC profile and EXIF in `.info`."""
    from PIL import Image

    values = to_integers(picture, 8)
    image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    image.info.update({key: value for key, value in (("icc_profile", picture.icc), ("exif", picture.exif)) if value})
    return image


def assemble(unit: Tensor, *, icc: bytes | None, colours: Colours | None = None, **about: Any) -> Picture:
    """A Picture of (1 to 4, H, W) in [0, 1], used up; 2 and 4 channels end in alpha; a foreign profile goes.

    Args:
        unit: the pixels.
        icc: the profile in the file.
        colours: what the file says of its colour space where it has no profile.
        about: the other fields.
    """
    alpha = unit[-1:].contiguous() if unit.shape[0] in (2, 4) else None
    pixels = unit[: 1 if unit.shape[0] < 3 else 3].mul_(2).sub_(1)
    grey = pixels.shape[0] == 1
    kept = icc if icc_kind(icc) == ("grey" if grey else "rgb") else None
    if kept is None and colours is not None:
        kept = profile(colours, grey=grey)
    return Picture(pixels=pixels, alpha=alpha, icc=kept, **about)


def _cmyk_to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    from PIL import ImageCms

    if icc_kind(icc) != "cmyk" or icc is None:
        return image.convert("RGB"), None
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    turned = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(icc)), srgb, outputMode="RGB")
    if turned is None:  # only with inPlace=True
        raise ImageReadError("the CMYK image could not be converted to sRGB")
    return turned, srgb.tobytes()
