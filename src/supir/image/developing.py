"""Files of phones and cameras that are made into a PNG before anything else looks at them: HEIC, AVIF, and raw files.

What is made lies in a temporary folder, uncompressed, in 16 bits where the file has more than 8, upright, with profile,
EXIF and XMP; from there on it is read as any PNG. The last one is kept, since a photo is opened several times.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips
from PIL import Image

from supir.errors import ImageReadError, ImageTooLargeError
from supir.image.directories import numbers, read_directories
from supir.image.exif import read_exif
from supir.image.facts import facts_of

_HEIF, _AVIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), (b"avif", b"avis")
_RAW = (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb")
"""How raw files begin that are no TIFF: of Fujifilm, Panasonic, Olympus, Sigma."""
_DNG_VERSION, _PHOTOMETRIC, _OF_SENSORS, _SUBFILE = 50706, 262, (32803, 34892), 254
_ORIENTATION = 274


def kind_to_develop(head: bytes, stream: BinaryIO) -> str | None:
    """HEIC, AVIF or RAW, by content; None for what is read as it is.

    Args:
        head: the first 64 bytes.
        stream: the file.
    """
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[start : start + 4] for start in range(16, min(len(head), head[3] or 64), 4))]
        if any(brand in _AVIF for brand in brands):
            return "AVIF"
        return "RAW" if brands[0] == b"crx " else "HEIC" if any(brand in _HEIF for brand in brands) else None
    if head.startswith(_RAW):
        return "RAW"
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return None
    pages = [numbers(page) for page in read_directories(stream)]
    first = pages[0] if pages else {}
    reduced = bool(pages) and all(page.get(_SUBFILE, 0) & 1 for page in pages)
    sensor = _DNG_VERSION in first or first.get(_PHOTOMETRIC) in _OF_SENSORS or head[8:10] == b"CR"
    return "RAW" if reduced or sensor else None


@contextmanager
def developed(path: Path, kind: str, max_pixels: int) -> Iterator[BinaryIO]:
    """A PNG of the file.

    Raises:
        ImageReadError: it is damaged, or the package that reads it is not installed.
        ImageTooLargeError: it has more pixels; nothing of it was decoded.
    """
    stat = path.stat()
    with (_made(path, kind, stat.st_size, stat.st_mtime_ns, max_pixels).file).open("rb", buffering=0) as file:
        yield file


@dataclass(frozen=True)
class _Made:
    folder: tempfile.TemporaryDirectory[str]
    """Goes with this."""

    @property
    def file(self) -> Path:
        return Path(self.folder.name) / "picture.png"


@functools.lru_cache(maxsize=1)
def _made(path: Path, kind: str, size: int, changed: int, max_pixels: int) -> _Made:
    made = _Made(tempfile.TemporaryDirectory(prefix="supir-", ignore_cleanup_errors=True))
    reader = {"HEIC": _heic, "AVIF": _avif, "RAW": _raw}[kind]
    reader(path, max_pixels).pngsave(str(made.file), compression=0, filter="none")
    return made


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{path}: {width} x {height} pixels is {width * height / 1e6:.0f} megapixels;"
            f" allowed are {max_pixels / 1e6:g} (max_pixels)", path
        )  # fmt: skip


def _missing(path: Path, what: str, package: str) -> ImageReadError:
    return ImageReadError(f"{path}: {what} needs {package}, which is not installed: pip install 'supir[cameras]'", path)


def _heic(path: Path, max_pixels: int) -> Any:
    try:
        import pillow_heif
    except ImportError:
        raise _missing(path, "a HEIC file", "pillow-heif") from None
    try:
        opened = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)  # decodes nothing yet
        picture = opened[opened.primary_index]
        width, height = picture.size
        _check_size(path, width, height, max_pixels)
        values = np.asarray(picture)
    except (ValueError, OSError, RuntimeError, EOFError, SyntaxError) as error:
        raise ImageReadError(f"{path}: damaged or truncated: {error}", path) from error
    depth = int(picture.info.get("bit_depth", 8))
    if values.dtype == np.uint16:  # from the upper bits to the whole range
        values = ((values >> (16 - depth)).astype(np.uint32) * 65535 // (2**depth - 1)).astype(np.uint16)
    info = {name: picture.info.get(name) for name in ("icc_profile", "exif", "xmp")}
    return _picture(values, info["icc_profile"], info["exif"], info["xmp"])


def _avif(path: Path, max_pixels: int) -> Any:
    image = pyvips.Image.heifload(str(path), fail_on="error", access="sequential")
    _check_size(path, image.width, image.height, max_pixels)
    exif = bytes(image.get("exif-data")) if image.get_typeof("exif-data") else None
    if (dpi := read_exif(exif).dpi) is None:
        return image
    return image.copy(xres=dpi[0] / 25.4, yres=dpi[1] / 25.4)  # by which libvips writes EXIF anew


def _raw(path: Path, max_pixels: int) -> Any:
    """Developed by LibRaw with the camera's own white balance, into sRGB of 16 bits, no brighter than it is."""
    try:
        import rawpy
    except ImportError:
        raise _missing(path, "the raw file of a camera", "rawpy") from None
    try:
        with rawpy.imread(str(path)) as raw:
            _check_size(path, raw.sizes.width, raw.sizes.height, max_pixels)
            values = raw.postprocess(use_camera_wb=True, no_auto_bright=True, output_bps=16)
    except rawpy.LibRawError as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ImageReadError(f"{path}: a raw file that cannot be developed: {reason}", path) from error
    with path.open("rb") as stream:
        exif = facts_of("TIFF", stream, None, None).exif.cleaned if stream.read(2) in (b"II", b"MM") else None
    return _picture(values, bytes(pyvips.Operation.call("profile_load", "srgb")), exif, None)


def _picture(values: np.ndarray[Any, Any], icc: bytes | None, exif: bytes | None, xmp: bytes | None) -> Any:
    """(H, W, C) with what came beside; it is upright, whatever its EXIF says."""
    height, width, bands = values.shape if values.ndim == 3 else (*values.shape, 1)
    deep = values.dtype == np.uint16
    image = pyvips.Image.new_from_memory(
        np.ascontiguousarray(values).tobytes(), width, height, bands, "ushort" if deep else "uchar"
    )
    grey, colour = ("grey16", "rgb16") if deep else ("b-w", "srgb")
    image = image.copy(interpretation=grey if bands < 3 else colour)
    if exif:
        tags = Image.Exif()
        tags.load(exif)
        tags[_ORIENTATION] = 1
        exif = tags.tobytes()
    for name, data in (("icc-profile-data", icc), ("exif-data", exif), ("xmp-data", xmp)):
        if data:
            image.set_type(pyvips.GValue.blob_type, name, bytes(data))
    return image
