"""What the four formats say beside their pixels, in their own ways, as far as libvips does not tell.

Each is walked through by its own frame: JPEG's segments, PNG's and WebP's chunks, TIFF's directories. Nothing is
decoded, and nothing here raises: what is damaged is passed over.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from supir.image.directories import Directory, numbers, rationals, read_directories, whole_numbers
from supir.image.exif import Exif, exif_of, read_exif, resolution_of
from supir.image.iptc import iptc_of_resources
from supir.image.profiles import SRGB, Colours, by_cicp, by_gamma
from supir.image.xmp import whole_of_extended

Text = tuple[str, str]
"""A keyword as PNG has them (Comment, Title, Author ...), and what it says."""

COMMENT = "Comment"
_MAX_PARTS = 2**18  # of a file, and bytes between them: beyond, a hostile one would take minutes
_MAX_CHUNK = 2**24
_MAX_TEXT = 2**22
_METRE = 0.0254  # of an inch


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What came with the pixels."""

    num_pictures: int | None = None
    """In the file, previews left out; None where libvips counts them."""
    page: int = 0
    """Which of them is read."""
    extras: tuple[int, ...] = ()
    """What TIFF says of each channel beyond colour: 0 nothing, 1 alpha that the colours are multiplied by, 2 alpha."""
    exif: Exif = field(default_factory=Exif)
    xmp: bytes | None = None
    iptc: bytes | None = None
    texts: tuple[Text, ...] = ()
    dpi: tuple[float, float] | None = None
    colours: Colours | None = None
    """Where the format says it in a way of its own."""
    broken: bool = False
    """A chunk that is not for pixels is damaged, and left out."""
    word: str = ""
    """What is wrong with the file where every pixel may be there all the same."""


def facts_of(kind: str, stream: BinaryIO, exif: bytes | None, xmp: bytes | None) -> Facts:
    """What an open file says; `exif` and `xmp` are what libvips found."""
    if kind == "TIFF":
        return _of_tiff(stream, xmp)
    found = _READERS[kind](stream, exif, xmp)
    stream.seek(0)
    return found


def jpeg_segments(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(marker, payload) of each segment before the pixels (ITU-T T.81, B.1); bytes between them are passed over."""
    stream.seek(2)
    patience = _MAX_PARTS
    while len(byte := stream.read(1)) == 1 and patience:
        patience -= 1
        if byte != b"\xff":
            continue
        while patience and (byte := stream.read(1)) == b"\xff":
            patience -= 1
        marker = byte[0] if byte else 0xD9
        if marker in (0xD9, 0xDA):
            return
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            continue
        size = stream.read(2)
        if len(size) < 2:
            return
        (length,) = struct.unpack(">H", size)
        payload = stream.read(max(length - 2, 0))
        if len(payload) < length - 2:
            return
        yield marker, payload


def _of_jpeg(stream: BinaryIO, exif: bytes | None, xmp: bytes | None) -> Facts:
    texts: list[Text] = []
    dpi, resources, num_pictures, extended = None, b"", 1, []
    for marker, payload in jpeg_segments(stream):
        if marker == 0xE0 and payload[:5] == b"JFIF\0" and len(payload) >= 12:
            unit, across, down = struct.unpack(">BHH", payload[7:12])
            if unit in (1, 2) and across and down:
                scale = 1.0 if unit == 1 else 2.54
                dpi = across * scale, down * scale
        elif marker == 0xE1 and payload.startswith(_XMP_EXTENSION):
            extended.append(payload[len(_XMP_EXTENSION) :])
        elif marker == 0xE2 and payload[:4] == b"MPF\0":
            num_pictures = max(num_pictures, _mpf_pictures(payload[4:]))
        elif marker == 0xED and payload.startswith(_PHOTOSHOP):
            resources += payload[len(_PHOTOSHOP) :]
        elif marker == 0xFE:
            texts.append((COMMENT, _decoded(payload.rstrip(b"\0"))))
    found = read_exif(exif)
    if extended and xmp is not None:
        xmp = whole_of_extended(xmp, extended)
    return Facts(
        num_pictures=num_pictures, exif=found, xmp=xmp, iptc=iptc_of_resources(resources),
        texts=tuple(text for text in texts if text[1]), dpi=dpi or found.dpi,
    )  # fmt: skip


_XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP = b"Photoshop 3.0\0"


def _mpf_pictures(block: bytes) -> int:
    """Pictures of a Multi-Picture file (CIPA DC-007, 5.2.3), without the previews of the first."""
    image = read_exif(block).image
    entries = image.get(0xB002, (0, 0, b""))[2]
    order = ">I" if block[:2] == b"MM" else "<I"
    kinds = [struct.unpack_from(order, entries, start)[0] & 0xFFFFFF for start in range(0, len(entries) - 3, 16)]
    if not kinds:
        return numbers(image).get(0xB001, 1)
    return sum(not 0x010001 <= kind <= 0x010002 for kind in kinds)


def png_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, bytes, bool]]:
    """(name, data, whether its checksum holds) of each chunk; the data of pixels, and huge ones, is passed over."""
    stream.seek(8)
    for _ in range(_MAX_PARTS):
        head = stream.read(8)
        if len(head) < 8:
            return
        (length,), name = struct.unpack(">I", head[:4]), head[4:]
        if name in (b"IDAT", b"fdAT") or length > _MAX_CHUNK:
            stream.seek(length + 4, os.SEEK_CUR)
            yield name, b"", True
            continue
        data, checksum = stream.read(length), stream.read(4)
        yield name, data, checksum == struct.pack(">I", zlib.crc32(name + data))
        if name == b"IEND":
            return


def _of_png(stream: BinaryIO, exif: bytes | None, xmp: bytes | None) -> Facts:
    texts: list[Text] = []
    said: dict[bytes, bytes] = {}
    num_frames, in_animation, broken = 0, False, False
    for name, data, sound in png_chunks(stream):
        if not sound:
            broken |= name != b"IEND"
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            if (text := _png_text(name, data)) is not None:
                texts.append(text)
        elif name == b"acTL" and len(data) == 8:
            num_frames = struct.unpack(">I", data[:4])[0]
        elif name == b"fcTL" and b"IDAT" not in said:
            in_animation = True
        said.setdefault(name, data)
    profiles = {
        key.removeprefix(_RAW): block for key, value in texts if (block := _raw_profile(key, value)) is not None
    }
    texts = [text for text in texts if not text[0].startswith(_RAW) and text[0] != _XMP_IN_PNG]
    exif = exif or profiles.get("exif") or profiles.get("APP1")
    found = read_exif(exif)
    resources = profiles.get("8bim") or profiles.get("iptc") or b""
    phys = said.get(b"pHYs", b"")
    across, down, unit = struct.unpack(">IIB", phys) if len(phys) == 9 else (0, 0, 0)
    return Facts(
        num_pictures=max(1, num_frames + (num_frames > 0 and not in_animation)), exif=found,
        xmp=xmp or profiles.get("xmp"), iptc=iptc_of_resources(resources) or None, texts=tuple(texts),
        dpi=(_snapped(across * _METRE), _snapped(down * _METRE)) if unit == 1 and across and down else found.dpi,
        colours=_png_colours(said), broken=broken,
        word="" if b"IEND" in said else "its end marker is missing, and every pixel is there",
    )  # fmt: skip


_XMP_IN_PNG, _RAW = "XML:com.adobe.xmp", "Raw profile type "


def _png_text(name: bytes, data: bytes) -> Text | None:
    key, _, rest = data.partition(b"\0")
    if name == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]  # behind the language and the translated key
    else:
        packed, rest = name == b"zTXt", rest[1:] if name == b"zTXt" else rest
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, _MAX_TEXT)
        except zlib.error:
            return None
    text = rest.decode("utf-8", "replace") if name == b"iTXt" else rest.decode("latin-1")
    return (key.decode("latin-1"), text) if key and text else None


def _raw_profile(key: str, value: str) -> bytes | None:
    """A block as ImageMagick and older writers put it into a text: name, length, hexadecimal digits."""
    if not key.startswith(_RAW):
        return None
    words = value.split(None, 2)
    try:
        return bytes.fromhex(words[2]) if len(words) == 3 else None
    except ValueError:
        return None


def _png_colours(said: dict[bytes, bytes]) -> Colours | None:
    """By the chunk that counts most (PNG, third edition, 13.1.3); a profile is not asked for here."""
    cicp, gama, chrm = (said.get(name, b"") for name in (b"cICP", b"gAMA", b"cHRM"))
    if len(cicp) == 4 and (found := by_cicp(cicp[0], cicp[1])) is not None:
        return found
    if b"sRGB" in said or (len(gama) != 4 and len(chrm) != 32):
        return None
    points = [value / 100_000 for value in struct.unpack(">8I", chrm)] if len(chrm) == 32 else []
    return by_gamma(struct.unpack(">I", gama)[0] / 100_000 if len(gama) == 4 else 0.0, points)


def riff_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """(name, offset of the data, its length) of each chunk of a WebP file, as they say."""
    stream.seek(12)
    for _ in range(_MAX_PARTS):
        head = stream.read(8)
        if len(head) < 8:
            return
        (length,) = struct.unpack("<I", head[4:])
        at = stream.tell()
        yield head[:4], at, length
        stream.seek(at + length + length % 2)


def _of_webp(stream: BinaryIO, exif: bytes | None, xmp: bytes | None) -> Facts:
    num_frames = sum(name == b"ANMF" for name, _, _ in riff_chunks(stream))
    found = read_exif(exif)
    return Facts(num_pictures=max(1, num_frames), exif=found, xmp=xmp, dpi=found.dpi)


_REDUCED, _MASK = 1, 4


def _of_tiff(stream: BinaryIO, xmp: bytes | None) -> Facts:
    pages = read_directories(stream)
    if not pages:
        return Facts(xmp=xmp)
    page, num_pictures = _full_page(pages)
    directory = pages[page]
    exif = exif_of(stream, directory)
    iptc = directory.get(0x83BB, (0, 0, b""))[2]
    resources = iptc_of_resources(directory.get(0x8649, (0, 0, b""))[2])
    said = directory.get(0x02BC, (0, 0, b""))[2]
    colours = _tiff_colours(directory)
    return Facts(
        num_pictures=num_pictures, page=page, extras=_extras(directory), exif=exif,
        xmp=said or (xmp if page == 0 else None), iptc=iptc if iptc[:1] == b"\x1c" else resources,
        dpi=resolution_of(directory) or exif.dpi, colours=colours,
    )  # fmt: skip


def _full_page(pages: list[Directory]) -> tuple[int, int]:
    """Which page holds the picture at its full size, and how many pages are pictures of their own.

    Thumbnails, levels of a pyramid and masks say what they are, or show it: smaller, of the same shape.
    """
    said = [numbers(page) for page in pages]
    full = [
        index for index, tags in enumerate(said)
        if not tags.get(254, 0) & (_REDUCED | _MASK) and tags.get(255, 1) != 2
    ] or [0]  # fmt: skip
    sizes = {index: (said[index].get(256, 0), said[index].get(257, 0)) for index in full}
    width, height = sizes[full[0]]
    alike = [
        index for index in full
        if abs(sizes[index][0] * height - sizes[index][1] * width) <= max(sizes[index]) + max(width, height)
    ]  # fmt: skip
    best = max(alike or full[:1], key=lambda index: (sizes[index][0], -index))
    levels = sum(sizes[index] != sizes[best] for index in alike)
    return best, len(full) - levels


def _extras(directory: Directory) -> tuple[int, ...]:
    """A word for each channel beyond colour, 0 where TIFF says none (TIFF 6.0, section 18)."""
    tags = numbers(directory)
    colours = {2: 3, 5: 4, 6: 3, 8: 3}.get(tags.get(262, 1), 1)
    beyond = max(0, tags.get(277, 1) - colours)
    said = whole_numbers(directory.get(338))
    return (*said, *[0] * beyond)[:beyond]


def _tiff_colours(directory: Directory) -> Colours | None:
    """WhitePoint, PrimaryChromaticities and TransferFunction (TIFF 6.0, section 20)."""
    white, points = rationals(directory.get(318)), rationals(directory.get(319))
    steps = whole_numbers(directory.get(301))
    if len(white) != 2 or len(points) != 6:
        if not steps:
            return None
        white, points = SRGB.white, SRGB.primaries
    length = 2 ** min(numbers(directory).get(258, 8), 16)
    curves = SRGB.curves
    if len(steps) in (length, 3 * length):
        stride = max(1, length // 1024)
        parts = [steps[start : start + length] for start in range(0, len(steps), length)]
        curves = tuple((*(each / 65535 for each in part[:-1:stride]), part[-1] / 65535) for part in parts)
    return Colours(tuple(points), (white[0], white[1]), curves, "as TIFF says")


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _snapped(dpi: float) -> float:
    """PNG counts by the metre: 300 dots an inch come back as 299.9994."""
    return float(round(dpi)) if abs(dpi - round(dpi)) < 0.02 else dpi


_READERS: dict[str, Callable[[BinaryIO, bytes | None, bytes | None], Facts]] = {
    "JPEG": _of_jpeg, "PNG": _of_png, "WebP": _of_webp,
}  # fmt: skip
