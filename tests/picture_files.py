"""Picture files for the tests, made by other means than our own writer."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips
import torch
from PIL import Image, ImageCms, PngImagePlugin

from supir.image import Picture, read

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "TIFF": ".tif"}
FORMATS = list(SUFFIXES)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "TIFF": {}, "WebP": {"lossless": True, "exact": True}}


def noise(*shape: int, bits: int = 8, seed: int = 0) -> npt.NDArray[Any]:
    """Random integers of the whole range."""
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(seed).integers(0, 2**bits, shape, dtype=dtype)


def smooth(height: int = 24, width: int = 36) -> npt.NDArray[np.uint8]:
    """A picture that JPEG hardly changes, different in each corner and channel."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 9 + y / 7)], -1).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    if kind == "PNG" and "xmp" in options:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode())
    if kind == "TIFF" and "xmp" in options:
        block = Image.Exif()
        block.load(options["exif"])
        block[700] = options.pop("xmp")
        options["exif"] = block
    image.save(stream, kind.upper(), **options)
    return stream.getvalue()


def save_vips(values: npt.NDArray[Any], path: Path, interpretation: str, **options: Any) -> Path:
    pyvips.Image.new_from_array(values).copy(interpretation=interpretation).write_to_file(str(path), **options)
    return path


def grey_profile() -> bytes:
    """A minimal grey profile, gamma 2.2: header, white point, tone curve (ICC.1:2022, 7 and 8.3.4)."""
    tags = {
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">IHH", 1, 563, 0),
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", b"GRAY", b"XYZ ") + b"\0" * 12 + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def cmyk_profile() -> bytes:
    """The CMYK profile that libvips carries."""
    return bytes(pyvips.Operation.call("profile_load", "cmyk"))


def exif(orientation: int = 1, thumbnail: bool = False) -> bytes:
    """Camera, date, place, size; as Pillow writes it, with a thumbnail directory behind it if asked for."""
    block = Image.Exif()
    block.update(
        {0x010F: "Acme", 0x0110: "Box 3", 0x0112: orientation, 0x0132: "1999:12:31 23:59:58", 0x8298: "someone"}
    )
    block.get_ifd(0x8769).update({0x9003: "1999:12:31 23:59:58", 0xA002: 4000, 0xA003: 3000, 0x829A: 0.004})
    block.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.5), 3: "E", 4: (2.0, 17.0, 40.0)})
    if thumbnail:
        block.get_ifd(1).update({0x0103: 6})
    return block.tobytes()


def png(width: int, height: int, data: bytes, *, depth: int = 8, color: int = 2) -> bytes:
    """A PNG that claims a size and holds the given compressed data, whatever it is."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(
    values: npt.NDArray[Any], photometric: int = 2, extras: list[int] | None = None, tags: dict[int, Any] | None = None
) -> bytes:
    """An uncompressed TIFF of (H, W, C) with such ExtraSamples, and other tags: shorts, or rationals for fractions."""
    height, width, channels = values.shape
    body = values.astype(values.dtype.newbyteorder("<")).tobytes()
    shorts = {258: [values.itemsize * 8] * channels, 259: [1], 262: [photometric], 277: [channels], 284: [1]}
    if extras:
        shorts[338] = extras
    longs = {256: width, 257: height, 273: 8, 278: height, 279: len(body)}
    records = {tag: (4, 1, struct.pack("<I", value)) for tag, value in longs.items()}
    for tag, found in (shorts | (tags or {})).items():
        if any(isinstance(value, float) for value in found):
            records[tag] = (5, len(found), b"".join(struct.pack("<II", round(value * 10**6), 10**6) for value in found))
        else:
            records[tag] = (3, len(found), struct.pack(f"<{len(found)}H", *found))
    table, outside, start = b"", b"", 8 + len(body) + len(body) % 2
    for tag, (kind, count, payload) in sorted(records.items()):
        field = payload.ljust(4, b"\0")
        if len(payload) > 4:
            field = struct.pack("<I", start + len(outside))
            outside += payload + b"\0" * (len(payload) % 2)
        table += struct.pack("<HHI", tag, kind, count) + field
    head = b"II*\0" + struct.pack("<I", start + len(outside)) + body + b"\0" * (len(body) % 2)
    return head + outside + struct.pack("<H", len(records)) + table + b"\0\0\0\0"


def cut_out(side: int = 96, level: int = 250) -> npt.NDArray[np.uint8]:
    """A disc of one level on transparent black, its rim half transparent."""
    y, x = np.mgrid[0:side, 0:side] - (side - 1) / 2
    alpha = np.clip(side / 3 - np.hypot(x, y) + 0.5, 0, 1)
    colours = np.where(alpha[..., None] > 0, level, 0).repeat(3, 2)
    return np.dstack([colours, alpha * 255]).round().astype(np.uint8)


def picture(channels: int = 3, bits: int = 8, alpha: bool = False, seed: int = 0) -> tuple[Picture, npt.NDArray[Any]]:
    """A Picture and the integers that it must be written as."""
    values = noise(30, 40, channels + alpha, bits=bits, seed=seed)
    unit = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1) / (2**bits - 1)
    return Picture(pixels=unit[:channels] * 2 - 1, alpha=unit[channels:] if alpha else None, bits=bits), values


def stored(path: Path) -> npt.NDArray[Any]:
    """What another reader finds in the file, (H, W, C)."""
    image = pyvips.Image.new_from_file(str(path), revalidate=True)
    return image.numpy().reshape(image.height, image.width, image.bands)


def read_bytes(folder: Path, data: bytes) -> Picture:
    path = folder / "source"
    path.write_bytes(data)
    return read(path)
