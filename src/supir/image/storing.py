"""What stands beside the pixels, put into a file that libvips has written: each format's own places, and what has none.

| | JPEG | PNG | WebP | TIFF |
|---|---|---|---|---|
| ICC profile | APP2 | iCCP | ICCP | 34675 |
| EXIF | APP1 | eXIf | EXIF | its directories |
| XMP | APP1, the long form where it is long | iTXt | XMP | 700 |
| IPTC | APP13 | as XMP | as XMP | 33723 |
| comments | COM | tEXt, iTXt | as XMP | as XMP |
| texts with a keyword | as XMP | tEXt, iTXt | as XMP | as XMP |
| dots an inch | JFIF | pHYs | EXIF | 282, 283, 296 |
"""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from supir.errors import ImageWriteError
from supir.image.directories import Directory
from supir.image.exif import append_to_tiff, fitting_a_segment, resolution_tags, with_resolution
from supir.image.facts import COMMENT, Text, png_chunks
from supir.image.iptc import as_properties, resources_of_iptc
from supir.image.picture import Picture
from supir.image.xmp import add_properties, extended

_SEGMENT = 65_533  # bytes of a segment of JPEG, without its marker
_XMP_NAME, _XMP_EXTENSION = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_METRE = 0.0254  # of an inch
_PROPERTIES = {
    "Title": ("dc:title", "Alt"), "Author": ("dc:creator", "Seq"), "Description": ("dc:description", "Alt"),
    "Copyright": ("dc:rights", "Alt"), "Software": ("xmp:CreatorTool", ""), "Source": ("dc:source", ""),
    COMMENT: ("exif:UserComment", "Alt"),
}  # fmt: skip
"""The keywords that PNG names (11.3.3.1) and the XMP property each is."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What is put beside the pixels, in the places that a format has."""

    exif: bytes | None
    xmp: bytes | None
    iptc: bytes | None
    texts: tuple[Text, ...]
    dpi: tuple[float, float] | None


def beside_of(picture: Picture, kind: str, path: Path) -> Beside:
    """What goes into a file of this kind; what has no place there becomes XMP, and a UserWarning names what is lost.

    Args:
        picture: whose.
        kind: JPEG, PNG, WebP, TIFF or AVIF, which has the places of WebP.
        path: of the file, for the words.
    """
    left: list[str] = []
    exif, xmp, iptc, texts = picture.exif, picture.xmp, picture.iptc, picture.texts
    if kind == "JPEG":
        exif, lost = fitting_a_segment(exif)
        left += [lost] if lost else []
        if iptc is not None and len(iptc) > _SEGMENT - 64:
            left.append("IPTC of more bytes than fit")
            iptc = None
    if iptc is not None and kind not in ("JPEG", "TIFF"):
        properties, without = as_properties(iptc)
        xmp, iptc = add_properties(xmp, properties), None
        left += [f"IPTC {', '.join(without)}"] if without else []
    native = {"PNG": texts, "JPEG": tuple(text for text in texts if text[0] == COMMENT and _fits(text[1]))}.get(
        kind, ()
    )
    others: list[tuple[str, str, list[str]]] = []
    for key, value in texts:
        if (key, value) not in native:
            name, form = _PROPERTIES.get(key, (f"kept:{key}", ""))
            others.append((name, form, [value]))
    if others:
        xmp = add_properties(xmp, others)
    if left:
        warnings.warn(f"{path}: {kind} has no place for {' and '.join(left)}; left out", UserWarning, stacklevel=5)
    exif = with_resolution(exif, picture.dpi, always=kind in ("WebP", "AVIF"))
    return Beside(exif=exif, xmp=xmp, iptc=iptc, texts=native, dpi=picture.dpi)


def put_beside(stream: BinaryIO, kind: str, beside: Beside) -> None:
    """Put it into an open file (mode r+b) as libvips has written it, with the profile in it but nothing else."""
    {"JPEG": _into_jpeg, "PNG": _into_png, "TIFF": _into_tiff}[kind](stream, beside)


def _fits(text: str) -> bool:
    return len(text.encode(errors="replace")) <= _SEGMENT - 2


def _into_jpeg(stream: BinaryIO, beside: Beside) -> None:
    across, down = beside.dpi or (0, 0)
    unit = 1 if 1 <= round(across) <= 65535 and 1 <= round(down) <= 65535 else 0  # 0: no claim about a print size
    density = struct.pack(">BHH", unit, *((round(across), round(down)) if unit else (1, 1)))
    segments = [(0xE0, b"JFIF\0\1\1" + density + b"\0\0")]
    if beside.exif is not None:
        segments.append((0xE1, beside.exif))
    if beside.xmp is not None:
        packet, further = beside.xmp, list[bytes]()
        if len(packet) > _SEGMENT - 2 - len(_XMP_NAME):
            packet, further = extended(packet, _SEGMENT - 2 - len(_XMP_EXTENSION))
        segments += [(0xE1, _XMP_NAME + packet), *((0xE1, _XMP_EXTENSION + part) for part in further)]
    if beside.iptc is not None:
        segments.append((0xED, b"Photoshop 3.0\0" + resources_of_iptc(beside.iptc)))
    segments += [(0xFE, text.encode(errors="replace")) for _, text in beside.texts]
    data = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    stream.seek(2)
    start = stream.read(4)
    _replace(stream, 2, struct.unpack(">H", start[2:])[0] + 2 if start[:2] == b"\xff\xe0" else 0, data)


def _into_png(stream: BinaryIO, beside: Beside) -> None:
    chunks = []
    if beside.dpi is not None:
        across, down = (round(value / _METRE) for value in beside.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", across, down, 1)))
    if beside.exif is not None:
        chunks.append((b"eXIf", beside.exif.removeprefix(b"Exif\0\0")))
    if beside.xmp is not None:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + beside.xmp))
    for key, text in beside.texts:
        name = key.encode("latin-1", "replace")[:79]
        try:
            chunks.append((b"tEXt", name + b"\0" + text.encode("latin-1")))
        except UnicodeEncodeError:
            chunks.append((b"iTXt", name + b"\0\0\0\0\0" + text.encode(errors="replace")))
    data = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    after_head, its_own = 33, 0
    for name, body, _ in png_chunks(stream):
        if name == b"IDAT":
            break
        if name == b"pHYs":
            its_own = stream.tell() - len(body) - 12
    if its_own:
        _replace(stream, its_own, 21, b"")
    _replace(stream, after_head, 0, data)


def _into_tiff(stream: BinaryIO, beside: Beside) -> None:
    tags: Directory = resolution_tags(beside.dpi)
    if beside.xmp is not None:
        tags[0x02BC] = (1, len(beside.xmp), beside.xmp)
    if beside.iptc is not None:
        tags[0x83BB] = (7, len(beside.iptc), beside.iptc)
    append_to_tiff(stream, beside.exif, tags)


def webp_with(data: bytes, beside: Beside, icc: bytes | None) -> bytes:
    """The bytes of a WebP file with nothing beside its pixels, with all that goes there (RFC 9649, 2.7).

    Raises:
        ImageWriteError: it is none.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ImageWriteError("libvips wrote no WebP")
    pixels, at = [], 12
    flags, size = 0, b""
    while at + 8 <= len(data):
        name, (length,) = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])
        body = data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
        if name == b"VP8X":
            flags, size = body[0] & 0x10, body[4:10]
        elif name in (b"ALPH", b"VP8 ", b"VP8L"):
            pixels.append((name, body))
    exif = beside.exif.removeprefix(b"Exif\0\0") if beside.exif is not None else None
    if not (icc or exif or beside.xmp):
        return data
    name, body = pixels[-1]
    if not size:
        size, alpha = _webp_size(name, body)
        flags |= 0x10 * alpha
    flags |= (0x20 if icc else 0) | (0x08 if exif else 0) | (0x04 if beside.xmp else 0)
    chunks = [
        (b"VP8X", bytes([flags, 0, 0, 0]) + size),
        (b"ICCP", icc),
        *pixels,
        (b"EXIF", exif),
        (b"XMP ", beside.xmp),
    ]
    whole = b"WEBP" + b"".join(
        name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) for name, body in chunks if body
    )
    return b"RIFF" + struct.pack("<I", len(whole)) + whole


def _webp_size(name: bytes, body: bytes) -> tuple[bytes, bool]:
    """(width - 1 and height - 1 in three bytes each, whether it has alpha) of a chunk of pixels."""
    if name == b"VP8L":
        (word,) = struct.unpack("<I", body[1:5])
        width, height, alpha = word & 0x3FFF, word >> 14 & 0x3FFF, bool(word >> 28 & 1)
    else:
        across, down = struct.unpack("<HH", body[6:10])
        width, height, alpha = (across & 0x3FFF) - 1, (down & 0x3FFF) - 1, False
    return width.to_bytes(3, "little") + height.to_bytes(3, "little"), alpha


def _replace(stream: BinaryIO, at: int, length: int, data: bytes) -> None:
    """Puts data in place of so many bytes of an open file; what follows moves."""
    step = 2**20
    shift = len(data) - length
    stream.seek(0, 2)
    end = stream.tell()
    starts = range(at + length, end, step)
    for start in reversed(starts) if shift > 0 else starts:
        stream.seek(start)
        block = stream.read(min(step, end - start))
        stream.seek(start + shift)
        stream.write(block)
    if shift < 0:
        stream.truncate(end + shift)
    stream.seek(at)
    stream.write(data)
