"""Picture files recognised and opened: by content and never by name, with nothing trusted.

A file is opened once, recognised by its first bytes, and given to the one libvips loader for that kind: no other
loader can be reached, whatever the file says or is called. Its header is checked before anything is decoded.
"""

from __future__ import annotations

import functools
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import pyvips

from supir.errors import ImageReadError, ImageTooLargeError
from supir.files import read_at
from supir.image.damage import last_way
from supir.image.developing import developed, kind_to_develop
from supir.image.directories import numbers, read_directories
from supir.image.facts import Facts, facts_of

MAX_PIXELS = 256 * 1000 * 1000
"""Of a picture, where nobody says how many: as float32 it takes 3 GB."""
_ALLOWED = "allowed are JPEG, PNG, WebP, TIFF, HEIC, AVIF and the raw files of cameras"
_LOADERS = {
    "JPEG": "jpegload_source", "PNG": "pngload_source", "WebP": "webpload_source", "TIFF": "tiffload_source",
    "AVIF": "heifload_source",  # of what is written; what is read is developed first
}  # fmt: skip
_BANDS = {"b-w": (1, 2), "grey16": (1, 2), "srgb": (3, 4), "rgb": (3, 4), "rgb16": (3, 4), "cmyk": (4, 5)}
_COMPRESSION, _PHOTOMETRIC = 259, 262  # tags of TIFF
_YCBCR, _LAB, _JPEG_IN_TIFF = 6, (8, 9, 10), (6, 7)
NOT_BUILT_IN = " compression support is not configured"
_STRANGERS = [  # only for the message
    (b"GIF8", "a GIF"), (b"BM", "a BMP"), (b"%PDF", "a PDF"), (b"%!PS", "PostScript"), (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"), (b"\x80\x02", "a Python pickle"), (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"), (b"\x80\x05", "a Python pickle"), (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL"), (b"\0\0\0\x0cJXL ", "a JPEG XL"), (b"\0\0\0\x0cjP", "a JPEG 2000"),
    (b"\x7fELF", "a program"),
]  # fmt: skip


class _OwnPlace(io.RawIOBase):
    """An open file read at a place of our own: libvips moves that of the descriptor, which Python would not notice."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._at = descriptor, 0
        self._size = os.fstat(descriptor).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = read_at(self._descriptor, len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@dataclass(frozen=True, eq=False)
class Opened:
    """A picture file, open, its header read."""

    path: Path
    kind: str
    """JPEG, PNG, WebP or TIFF."""
    image: Any
    """As libvips sees it, decoded when it is asked for pixels."""
    stream: BinaryIO
    """The same file, for whoever reads it himself."""
    descriptor: int

    @cached_property
    def facts(self) -> Facts:
        """What it says beside its pixels."""
        exif, xmp = (field(self.image, name) for name in ("exif-data", "xmp-data"))
        return facts_of(self.kind, self.stream, exif and bytes(exif), xmp and bytes(xmp))

    @property
    def turn(self) -> int:
        """EXIF orientation, 1 to 8."""
        return int(field(self.image, "orientation", 1))

    @property
    def num_pictures(self) -> int:
        """In the file; previews of one are none."""
        said = self.facts.num_pictures
        return int(field(self.image, "n-pages", 1)) if said is None else said

    def load(self, data: bytes | None, fail_on: str) -> Any:
        """The image anew, of other bytes or of the file's own, to be decoded at a level of libvips."""
        page = self.facts.page if self.kind == "TIFF" else 0
        return load(self.kind, self.descriptor if data is None else data, fail_on, page)

    def all_bytes(self) -> bytes:
        """Of the file."""
        self.stream.seek(0)
        return self.stream.read()


@functools.cache
def quiet_libvips() -> None:
    """Sets libvips up for the whole process, at first use.

    Its cache is switched off: it would grow with each file, and hand out the old pixels of a file that has been written
    anew. Its warnings are let go, what is wrong with a file comes as an error. And the text of an error may hold any
    bytes, where pyvips expects UTF-8: both places that turn such text into Python's are made tolerant.
    """
    pyvips.cache_set_max(0)
    pyvips.cache_set_max_mem(0)
    pyvips.cache_set_max_files(0)
    _let_warnings_go()

    def tolerant(text: Any) -> str:
        value = "" if text == pyvips.ffi.NULL else pyvips.ffi.string(text)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    for module in (pyvips, pyvips.error):
        if hasattr(module, "_to_string"):
            module._to_string = tolerant


def _let_warnings_go() -> None:
    """Has GLib call a C function that does nothing, where pyvips logs in Python.

    pyvips would be called in a thread of libvips. Where Python then collects its garbage, it frees pictures of another
    thread in the middle of a computation, and the process aborts.
    """
    nothing = pyvips.ffi.cast("GLogFunc", pyvips.ffi.addressof(pyvips.vips_lib, "vips_cache_get_max"))
    pyvips._remove_log_handler()
    levels = pyvips.GLogLevelFlags
    below_errors = levels.LEVEL_WARNING | levels.LEVEL_MESSAGE | levels.LEVEL_INFO | levels.LEVEL_DEBUG
    pyvips._log_handler_id = pyvips.glib_lib.g_log_set_handler(b"VIPS", below_errors, nothing, pyvips.ffi.NULL)


@contextmanager
def opened(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Opened]:
    """A picture file whose header is read; every failure of libvips or the system becomes an ImageReadError.

    One that is developed first is so only if it has no more than ``max_pixels``.
    """
    quiet_libvips()
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # asked before opening: a named pipe would wait for ever
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise ImageReadError(f"{path}: {kind}; a picture file is needed", path)
        with path.open("rb", buffering=0) as file:
            stream = io.BufferedReader(_OwnPlace(file.fileno()))
            head = stream.read(64)
            if (camera := kind_to_develop(head, stream)) is not None:
                with developed(path, camera, max_pixels) as png:
                    stream = io.BufferedReader(_OwnPlace(png.fileno()))
                    yield Opened(path, "PNG", load("PNG", png.fileno(), "none"), stream, png.fileno())
                return
            kind = _recognise(path, head)
            yield Opened(path, kind, _header_of(path, kind, stream, file.fileno()), stream, file.fileno())
    except pyvips.Error as error:
        reason = reason_of(error)
        if reason.endswith(NOT_BUILT_IN):
            method = reason.removesuffix(NOT_BUILT_IN).split()[-1]
            raise ImageReadError(
                f"{path}: packed by {method}, which is not read; save it anew with LZW or Deflate", path
            ) from error
        raise ImageReadError(f"{path}: damaged or truncated: {reason}", path) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageReadError(f"{path}: cannot be read: {reason}", path) from error


def read_size(path: Path | str) -> tuple[int, int]:
    """(width, height) of a picture file in pixels, upright. Only the header is read.

    Raises:
        ImageReadError: it is no picture that can be read.
    """
    with opened(Path(path)) as source:
        size = int(source.image.width), int(source.image.height)
        return size[::-1] if source.turn > 4 else size


def _header_of(path: Path, kind: str, stream: BinaryIO, descriptor: int) -> Any:
    """The image by its header alone, which may be sound where the rest is cut off."""
    page = 0
    if kind == "TIFF":
        _check_tiff(path, stream)
        page = facts_of(kind, stream, None, None).page
    try:
        return load(kind, descriptor, "none", page)
    except pyvips.Error:
        if kind == "TIFF" and not read_directories(stream):
            raise ImageReadError(
                f"{path}: damaged or truncated: its directory is cut off, without which nothing of it can be read", path
            ) from None
        if kind != "WebP":
            raise
        stream.seek(0)
        return load(kind, last_way(kind, stream.read()).data or b"", "none")


def load(kind: str, source: int | bytes, fail_on: str, page: int = 0) -> Any:
    """The image of a descriptor, or of bytes, by the loader of its kind; decoded when it is asked for pixels.

    The caller keeps the bytes until then: pyvips does not.
    """
    if isinstance(source, bytes):
        origin = pyvips.Source.new_from_memory(source)
    else:
        os.lseek(source, 0, os.SEEK_SET)
        origin = pyvips.Source.new_from_descriptor(source)
    options = {"page": page} if page else {}
    return getattr(pyvips.Image, _LOADERS[kind])(origin, access="sequential", fail_on=fail_on, **options)


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
    pages = [numbers(page) for page in read_directories(stream)]
    found = pages[0] if pages else {}
    kind, packing = found.get(_PHOTOMETRIC), found.get(_COMPRESSION)
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
        return "a video file, or a picture of an unknown kind"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")):
        return "an SVG or other XML file"
    if text.startswith((b"<!doctype", b"<html")):
        return "a web page"
    printable = all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)
    return "a text file" if printable else "a file of an unknown kind"


def check_header(path: Path, kind: str, image: Any, max_pixels: int, num_extras: int = 0) -> None:
    """Refuse what is too large, or is no picture as `read` takes them; ``num_extras`` channels are left out."""
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
    if image.bands - num_extras not in _BANDS.get(image.interpretation, ()):
        raise ImageReadError(
            f"{path}: {image.bands} channels of {image.interpretation}; "
            "allowed are grey, RGB and CMYK, each with or without alpha", path
        )  # fmt: skip


def field(image: Any, name: str, default: Any = None) -> Any:
    """What libvips knows of an image by a name."""
    return image.get(name) if image.get_typeof(name) else default


def reason_of(error: pyvips.Error) -> str:
    """The last line of what libvips says, often several that repeat one another; pyvips adds only which call failed."""
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    return lines[-1] if lines else "the data is not that of a whole picture"
