"""Picture files in: JPEG, PNG, WebP and TIFF, by content and never by name, with nothing trusted.

A file is opened once, recognised by its first bytes, and given to the one libvips loader for that kind: no other
loader can be reached, whatever the file says or is called. Its header is checked before anything is decoded.
"""

from __future__ import annotations

import functools
import math
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyvips
import torch

from supir.errors import ImageReadError, ImageTooLargeError, ImageWriteError, OptionError
from supir.files import sentence
from supir.image.exif import clean_exif, exif_of_tiff, tiff_numbers
from supir.image.picture import Picture, assemble, from_integers
from supir.image.xmp import clean_xmp, record_of
from supir.windows import reserve

__all__ = ["MAX_PIXELS", "check_file", "read", "read_record", "read_size"]

MAX_PIXELS = 256 * 1000 * 1000
"""Default of `read`'s `max_pixels`: as float32 such a picture takes 3 GB."""

_ALLOWED = "allowed are JPEG, PNG, WebP and TIFF"
_LOADERS = {"JPEG": "jpegload_source", "PNG": "pngload_source", "WebP": "webpload_source", "TIFF": "tiffload_source"}
_BANDS = {"b-w": (1, 2), "grey16": (1, 2), "srgb": (3, 4), "rgb": (3, 4), "rgb16": (3, 4), "cmyk": (4, 5)}
_SUBFILE, _COMPRESSION, _PHOTOMETRIC, _DNG_VERSION = 254, 259, 262, 50706  # tags of TIFF
_YCBCR, _LAB, _OF_SENSORS, _JPEG_IN_TIFF = 6, (8, 9, 10), (32803, 34892), (6, 7)
_NOT_BUILT_IN = " compression support is not configured"
_STRANGERS = [  # only for the message
    (b"GIF8", "a GIF"), (b"BM", "a BMP"), (b"%PDF", "a PDF"), (b"%!PS", "PostScript"), (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"), (b"\x80\x02", "a Python pickle"), (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"), (b"\x80\x05", "a Python pickle"), (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL"), (b"\0\0\0\x0cJXL ", "a JPEG XL"), (b"\0\0\0\x0cjP", "a JPEG 2000"),
    (b"\x7fELF", "a program"),
]  # fmt: skip


def read(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """A picture file as a `Picture`.

    The EXIF turn is applied. RGB and grey stay in their own colour space with their ICC profile; CMYK is converted to
    sRGB through its profile; palettes become RGB or RGBA; 1, 2 and 4 bits become 8. Of an animation or a file of
    several pages the first is read, with a UserWarning. Refused are: float and 32-bit samples (their range is not in
    the file), LAB, YCbCr that is no JPEG, more channels than colour and alpha, and the raw files of cameras, of which
    a thumbnail would be read.

    Args:
        path: the file; its suffix does not matter.
        max_pixels: width times height above which nothing is decoded.

    Raises:
        ImageReadError: missing, not readable, not a regular file, empty, damaged, truncated, or of a kind not read.
        ImageTooLargeError: more than `max_pixels`.
        OptionError: `max_pixels` is below 1.
    """
    with contents(Path(path), max_pixels) as (image, turn, about):
        values = np.frombuffer(image.write_to_memory(), np.uint16 if about["bits"] == 16 else np.uint8)
        values = values.reshape(image.height, image.width, image.bands)
    upright = np.ascontiguousarray(turned(values, turn))
    return assemble(from_integers(upright), path=Path(path), **about)


def decoded_into(
    path: Path | str, file: BinaryIO, max_pixels: int = MAX_PIXELS
) -> tuple[tuple[int, int, int], int, Picture]:
    """Decode as ``read`` does, into an open file of bare integers.

    Returns:
        The (H, W, C) of the integers, the EXIF turn that they still need, and a picture of one pixel with all that
        came along.
    """
    with contents(Path(path), max_pixels) as (image, turn, about):
        shape = int(image.height), int(image.width), int(image.bands)
        try:
            reserve(file, math.prod(shape) * about["bits"] // 8)
        except OSError as error:
            raise ImageWriteError(sentence(error, path, failed="cannot be decoded"), path) from error
        image.rawsave_target(pyvips.Target.new_to_descriptor(file.fileno()))
    return shape, turn, assemble(torch.zeros(shape[2], 1, 1), path=Path(path), **about)


@contextmanager
def contents(path: Path, max_pixels: int) -> Iterator[tuple[Any, int, dict[str, Any]]]:
    """Of a checked file (the image in grey or RGB, decoded lazily; its EXIF turn; what else ``assemble`` is told)."""
    if max_pixels < 1:
        raise OptionError(f"max_pixels is {max_pixels}; it must be at least 1")
    with _opened(path) as (kind, image, stream):
        _check_header(path, kind, image, max_pixels)
        bits = 16 if image.format == "ushort" else 8
        turn = int(_field(image, "orientation", 1))
        exif = exif_of_tiff(stream) if kind == "TIFF" else _cleaned(clean_exif, _field(image, "exif-data"))
        xmp = _cleaned(clean_xmp, _field(image, "xmp-data"))
        if image.interpretation == "cmyk":
            image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", intent="relative", depth=bits)
        icc = _field(image, "icc-profile-data")
        yield image, turn, {"icc": icc, "exif": exif, "xmp": xmp, "bits": bits}


def read_size(path: Path | str) -> tuple[int, int]:
    """(width, height) of a picture file in pixels, upright. Only the header is read.

    Raises:
        ImageReadError: as `read`.
    """
    with _opened(Path(path)) as (_, image, _):
        size = int(image.width), int(image.height)
        return size[::-1] if int(_field(image, "orientation", 1)) > 4 else size


def check_file(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> tuple[str, int, int]:
    """(kind, width, height) of a file whose header says that `read` would take it; nothing is decoded.

    The kind is JPEG, PNG, WebP or TIFF, by content; the size is in pixels, before any EXIF turn.

    Raises:
        ImageReadError, ImageTooLargeError: as `read`; damage behind the header is not seen.
    """
    with _opened(Path(path)) as (kind, image, _):
        _check_header(Path(path), kind, image, max_pixels)
        return kind, int(image.width), int(image.height)


def read_record(path: Path | str) -> dict[str, str]:
    """The record that `write` put into a file's XMP; empty if it has none. Only the header is read.

    Raises:
        ImageReadError: as `read`.
    """
    with _opened(Path(path)) as (_, image, _):
        return record_of(_field(image, "xmp-data"))


@functools.cache
def quiet_libvips() -> None:
    """Sets libvips up for the whole process, at first use.

    Its cache is switched off: it would grow with each file, and hand out the old pixels of a file that has been written
    anew. And what libvips says about a damaged file may hold any bytes, where pyvips expects UTF-8 and fails in the
    middle of its log handler, on stderr: both places that turn such text into Python's are made tolerant.
    """
    pyvips.cache_set_max(0)
    pyvips.cache_set_max_mem(0)
    pyvips.cache_set_max_files(0)

    def tolerant(text: Any) -> str:
        value = "" if text == pyvips.ffi.NULL else pyvips.ffi.string(text)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    for module in (pyvips, pyvips.error):
        if hasattr(module, "_to_string"):
            module._to_string = tolerant


@contextmanager
def _opened(path: Path) -> Iterator[tuple[str, Any, BinaryIO]]:
    """(kind, the lazily decoded libvips image, the open file); every failure inside becomes an ImageReadError."""
    quiet_libvips()
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # asked before opening: a named pipe would wait for ever
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise ImageReadError(f"{path}: {kind}; a picture file is needed", path)
        with path.open("rb") as stream:
            kind = _recognise(path, stream.read(64))
            if kind == "TIFF":
                _check_tiff(path, stream)
            os.lseek(stream.fileno(), 0, os.SEEK_SET)
            source = pyvips.Source.new_from_descriptor(stream.fileno())
            image = getattr(pyvips.Image, _LOADERS[kind])(source, access="sequential", fail_on="error")
            yield kind, image, stream
    except pyvips.Error as error:
        reason = _reason(error)
        if reason.endswith(_NOT_BUILT_IN):
            method = reason.removesuffix(_NOT_BUILT_IN).split()[-1]
            raise ImageReadError(
                f"{path}: packed by {method}, which is not read; save it anew with LZW or Deflate", path
            ) from error
        raise ImageReadError(f"{path}: damaged or truncated: {reason}", path) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageReadError(f"{path}: cannot be read: {reason}", path) from error


def _recognise(path: Path, head: bytes) -> str:
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    raise ImageReadError(
        f"{path}: {_stranger(head)}, not a picture supir reads; {_ALLOWED} (the content decides, not the name)", path
    )


def _check_tiff(path: Path, stream: BinaryIO) -> None:
    """Refuse what libvips would take for something else, or for damage (TIFF 6.0, sections 8 and 21; DNG 1.7)."""
    found = tiff_numbers(stream)
    kind, packing = found.get(_PHOTOMETRIC), found.get(_COMPRESSION)
    stream.seek(8)
    if found.get(_SUBFILE, 0) & 1 or _DNG_VERSION in found or kind in _OF_SENSORS or stream.read(2) == b"CR":
        raise ImageReadError(f"{path}: the raw file of a camera; develop it first, to a 16-bit TIFF or PNG", path)
    if kind in _LAB:
        raise ImageReadError(f"{path}: LAB colours; convert it to RGB first", path)
    if kind == _YCBCR and packing not in _JPEG_IN_TIFF:
        raise ImageReadError(f"{path}: YCbCr colours without JPEG compression; convert it to RGB first", path)


def _stranger(head: bytes) -> str:
    if not head:
        return "an empty file"
    for magic, name in _STRANGERS:
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")):
        return "an SVG or other XML file"
    if text.startswith((b"<!doctype", b"<html")):
        return "a web page"
    printable = all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)
    return "a text file" if printable else "a file of an unknown kind"


def _check_header(path: Path, kind: str, image: Any, max_pixels: int) -> None:
    width, height = image.width, image.height
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{path}: {width} x {height} pixels is {width * height / 1e6:.0f} megapixels; "
            f"allowed are {max_pixels / 1e6:g} (max_pixels)", path
        )  # fmt: skip
    if image.format not in ("uchar", "ushort") or (kind == "JPEG" and image.format != "uchar"):
        raise ImageReadError(
            f"{path}: samples of type {image.format}; allowed are 8 and 16 bit integers. "
            "Save it as 16-bit TIFF or PNG first", path
        )  # fmt: skip
    if image.bands not in _BANDS.get(image.interpretation, ()):
        raise ImageReadError(
            f"{path}: {image.bands} channels of {image.interpretation}; "
            "allowed are grey, RGB and CMYK, each with or without alpha", path
        )  # fmt: skip
    if int(_field(image, "n-pages", 1)) > 1:
        warnings.warn(f"{path}: {_field(image, 'n-pages')} pages; only the first is read", UserWarning, stacklevel=5)


def turned(values: npt.NDArray[Any], turn: int) -> npt.NDArray[Any]:
    """A view of (H, W, C) that undoes EXIF orientation `turn` (1 to 8; EXIF 3.0, 4.6.5, tag 274)."""
    if turn in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    return np.flip(values, {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(turn, ()))


def _field(image: Any, name: str, default: Any = None) -> Any:
    return image.get(name) if image.get_typeof(name) else default


def _cleaned(clean: Any, block: Any) -> bytes | None:
    return None if block is None else clean(bytes(block))


def _reason(error: pyvips.Error) -> str:
    """The last line of what libvips says, often several that repeat one another; pyvips adds only which call failed."""
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    return lines[-1] if lines else "the data is not that of a whole picture"
