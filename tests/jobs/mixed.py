"""A folder as people have them: good pictures in every format, mode and size, broken and hostile files, odd names."""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from picture_files import FORMATS, SRGB, SUFFIXES, cmyk_profile, encode, exif, grey_profile, noise, png

NAMES = (
    "été à la mer 夏.png", "😀" * 60 + ".png", "e\u0301.png", "two\nlines.png", "tab\tand \x1b[31mred.png",
    "-rf.png", "--output=x.png", "up\\..\\..\\..\\up.png", "%2e%2e%2fup.png", "a..b.png", "~.png",
    "$(touch sprung).png",
    "'; DROP TABLE job; --.png", "[red]bold[/].png", "*?.png", os.fsdecode(b"latin\xe91.png"), " .png", "CON.png",
    "x" * 251 + ".png", "SHOUTING.PNG", "double.jpg.png",
)  # fmt: skip
"""Each of a good picture."""


class Trap:
    """Makes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A folder of pictures, and what is to become of each."""

    folder: Path
    good: tuple[str, ...]
    """By their paths in the folder, which are those of their results."""
    bad: dict[str, str]
    """Of each a part of the sentence."""
    sprung: Path
    """There when something in a file was executed."""


def mixed(folder: Path, total: int = 200) -> Mixed:
    """Write the folder: everything odd once, and ordinary photographs up to ``total`` files."""
    sprung = folder.parent / "sprung"
    named = [(f"names/{name}", encode(_photo(seed, 24, 32), "PNG")) for seed, name in enumerate(NAMES)]
    odd = [(f"odd/{name}", data) for name, data in (*_odd(), *_tiny())]
    wrong = [(f"bad ones/{name}", *found) for name, *found in (*_broken(), *_refused(), *_hostile(sprung))]
    good = {f"{'abcde'[number % 5]}/{name}": data for number, (name, data) in enumerate([*named, *odd])}
    bad = {f"{'abcde'[number % 5]}/{name}": found for number, (name, *found) in enumerate(wrong)}
    for number in range(total - len(good) - len(bad)):
        kind = FORMATS[number % 4]
        photo = _photo(number, 24 + number % 17, 20 + number % 23)
        good[f"{'abcde'[number % 5]}/{number:03}{SUFFIXES[kind]}"] = encode(photo, kind)
    for name, data in {**good, **{name: data for name, (data, _) in bad.items()}}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "a" / "loop.gif").write_bytes(b"GIF89a")  # by its suffix not looked at, but counted
    (folder / "notes.txt").write_text("nothing")
    return Mixed(folder=folder, good=tuple(good), bad={name: why for name, (_, why) in bad.items()}, sprung=sprung)


def _photo(seed: int = 0, height: int = 32, width: int = 40) -> Image.Image:
    return Image.fromarray(noise(height, width, 3, seed=seed))


def _vips(shape: tuple[int, ...], space: str, suffix: str, bits: int = 8, **options: Any) -> bytes:
    image = pyvips.Image.new_from_array(noise(*shape, bits=bits)).copy(interpretation=space)
    return bytes(image.write_to_buffer(suffix, **options))


def _odd() -> Iterator[tuple[str, bytes]]:
    """Everything that the four formats hold beside 8-bit RGB, and that a person would call a picture."""
    photo = _photo(1)
    grey, other = photo.convert("L"), _photo(2)
    for kind in ("PNG", "TIFF"):
        suffix = SUFFIXES[kind]
        for mode in ("1", "L", "LA", "P", "RGBA"):
            yield f"mode {mode}{suffix}", encode((grey if mode == "LA" else photo).convert(mode), kind)
        yield f"grey 16{suffix}", encode(Image.fromarray(noise(30, 40, bits=16)), kind)
        yield f"RGB 16{suffix}", _vips((30, 40, 3), "rgb16", suffix, 16)
        yield f"RGBA 16{suffix}", _vips((30, 40, 4), "rgb16", suffix, 16)
        yield f"bits 2{suffix}", _vips((30, 40), "b-w", suffix, bitdepth=2)
    yield "palette transparent.png", encode(photo.convert("P"), "PNG", transparency=3)
    yield "palette half transparent.png", encode(photo.convert("P"), "PNG", transparency=bytes(range(256)))
    yield "grey with a clear value.png", encode(grey, "PNG", transparency=100)
    yield "interlaced.png", _vips((30, 40, 3), "srgb", ".png", interlace=True)
    yield "animated.png", encode(photo, "PNG", save_all=True, append_images=[other])
    yield "fax.tif", encode(grey.convert("1"), "TIFF", compression="group4")
    big_endian = noise(30, 40, bits=16).astype(">u2").tobytes()
    yield "big-endian.tif", encode(Image.frombytes("I;16B", (40, 30), big_endian), "TIFF")
    yield "pages.tif", encode(photo, "TIFF", save_all=True, append_images=[other])
    yield "pyramid.tif", _vips((80, 80, 3), "srgb", ".tif", tile=True, pyramid=True, tile_width=16, tile_height=16)
    for packing in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"packed by {packing}.tif", encode(photo, "TIFF", compression=packing)
    for kind in ("JPEG", "TIFF"):
        yield f"ink{SUFFIXES[kind]}", encode(photo.convert("CMYK"), kind)
        yield f"ink with profile{SUFFIXES[kind]}", encode(photo.convert("CMYK"), kind, icc_profile=cmyk_profile())
    yield "ink with a broken profile.jpg", encode(photo.convert("CMYK"), "JPEG", icc_profile=cmyk_profile()[:3000])
    for kind in ("JPEG", "PNG", "TIFF"):
        yield f"grey with profile{SUFFIXES[kind]}", encode(grey, kind, icc_profile=grey_profile())
        yield f"grey with a colour profile{SUFFIXES[kind]}", encode(grey, kind, icc_profile=SRGB)
    yield "progressive.jpg", encode(photo, "JPEG", progressive=True)
    yield "of a phone.jpg", encode(photo, "MPO", save_all=True, append_images=[other])
    for turn in range(2, 9):
        yield f"turned {turn}.jpg", encode(photo, "JPEG", exif=exif(turn, thumbnail=True))
    for kind in ("PNG", "WebP", "TIFF"):
        yield f"turned 6{SUFFIXES[kind]}", encode(photo, kind, exif=exif(6))
    yield "clear.webp", encode(Image.fromarray(noise(30, 40, 4)), "WebP")
    yield "animated.webp", encode(photo, "WebP", save_all=True, append_images=[other])
    yield "really a PNG.jpg", encode(photo, "PNG")
    yield "really a JPEG.png", encode(photo, "JPEG")
    yield "and a ZIP.png", encode(photo, "PNG") + b"PK\x05\x06" + b"\0" * 18
    yield "and a page.jpg", encode(photo, "JPEG", comment=b"<script>alert(1)</script>")


def _tiny() -> Iterator[tuple[str, bytes]]:
    for kind in FORMATS:
        yield f"1x1{SUFFIXES[kind]}", encode(_photo(3, 1, 1), kind)
    for width, height in ((3, 200), (200, 3), (1, 9), (2, 2)):
        yield f"{width}x{height}.png", encode(_photo(4, height, width), "PNG")


Bad = tuple[str, bytes, str]


def _broken() -> Iterator[Bad]:
    for kind in FORMATS:
        whole = encode(_photo(5, 90, 120), kind)
        for part in (0.03, 0.5, 0.97):
            yield f"cut at {part}{SUFFIXES[kind]}", whole[: int(len(whole) * part)], "damaged or truncated"
        yield f"empty{SUFFIXES[kind]}", b"", "an empty file"
    yield "turned\nover.png", encode(_photo(6), "PNG")[:-200], "damaged or truncated"
    yield "words.jpg", b"Dear all,\nthis is not a picture.\n", "a text file"
    yield "zeros.png", bytes(1000), "a file of an unknown kind"
    middle = bytearray(encode(_photo(7), "PNG"))
    middle[len(middle) // 2] ^= 255
    yield "one byte.png", bytes(middle), "damaged or truncated"


def _refused() -> Iterator[Bad]:
    photo = _photo(8)
    yield "loop.jpg", encode(photo, "GIF", save_all=True, append_images=[_photo(9)]), "a GIF, not a picture supir reads"
    yield "bitmap.png", encode(photo, "BMP"), "a BMP"
    yield "float.tif", encode(Image.fromarray(np.zeros((9, 9), np.float32)), "TIFF"), "samples of type float"
    yield "integers.tif", encode(Image.fromarray(np.zeros((9, 9), np.int32)), "TIFF"), "samples of type int"
    yield "lab.tif", encode(photo.convert("LAB"), "TIFF"), "LAB colours"
    yield "ycbcr.tif", encode(photo.convert("YCbCr"), "TIFF"), "YCbCr colours without JPEG compression"
    yield "six.tif", _vips((9, 9, 6), "b-w", ".tif"), "6 channels"
    yield "zstd.tif", encode(photo, "TIFF", compression="zstd"), "packed by ZSTD"
    yield "raw.tif", encode(photo, "TIFF", tiffinfo={254: 1}), "a raw file that cannot be developed"
    yield "page.png", b"<!DOCTYPE html><html></html>", "a web page"
    yield "phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "damaged or truncated"


def _hostile(sprung: Path) -> Iterator[Bad]:
    """Of small files: what claims to be huge, what would run, and what is two things at once."""
    rows = zlib.compress(bytes(3751 * 1000), 9)
    assert len(rows) < 5000
    yield "bomb.png", png(30_000, 30_000, rows, depth=1, color=0), "30000 x 30000 pixels is 900 megapixels"
    yield "claim.png", png(60_000, 60_000, b""), "3600 megapixels"
    yield "overflow.png", png(2**31 - 1, 2**31 - 1, b""), "damaged or truncated"
    jpeg = bytearray(encode(_photo(0, 16, 16), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    yield "claim.jpg", bytes(jpeg), "4290 megapixels"
    tags = [(256, 60_000), (257, 60_000), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 60_000), (279, 64)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    tiff = b"II*\0" + struct.pack("<I", 72) + bytes(64) + struct.pack("<H", len(tags)) + body + bytes(4)
    yield "claim.tif", tiff, "3600 megapixels"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"pickle {protocol}.png", pickle.dumps(Trap(sprung), protocol), "not a picture supir reads"
    script = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "script.png", script, "an SVG or other XML file"
    yield "outside.jpg", b"push graphic-context\nimage over 0,0 0,0 'url(http://127.0.0.1/x)'\n", "a text file"
    yield "gif and script.png", b"GIF89a/*" + bytes(40) + b"*/=1;alert(1)", "a GIF"
    yield "PDF and more.jpg", b"%PDF-1.7\n" + encode(_photo(), "JPEG"), "a PDF"
    yield "archive.png", b"PK\x03\x04" + bytes(60), "a ZIP archive"
    yield "program.jpg", b"\x7fELF" + bytes(60), "a program"
    yield "loop of directories.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "damaged or truncated"
