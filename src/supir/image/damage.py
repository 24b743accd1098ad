"""Whether every pixel of a file is there, and what can be had of one in which some are not.

What counts is the picture, not the file: where only an end marker, or a chunk that is not for pixels, is missing or
damaged, every pixel is there. A decoder's own levels do not say this: libvips takes a JPEG without its end marker for
truncated, and one with garbage in its middle for sound. So each format has its ways to be decoded, the strict first.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from supir.image.facts import jpeg_segments, riff_chunks


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to decode a file."""

    data: bytes | None
    """To be decoded in place of the file's own; None for those."""
    fail_on: str
    """libvips's level."""
    word: str
    """What was wrong with the file."""
    used_up: int | None = None
    """Of a JPEG: where its pixels' data end; a decoder that needs less has lost its way."""


def strict_level(kind: str, packing: int) -> str:
    """At what level libvips sees damage of the pixels in a sound header, by format and TIFF's Compression."""
    return "warning" if kind == "TIFF" and packing == 7 else "error"


def mended_ways(kind: str, data: bytes) -> Iterator[Way]:
    """Ways that succeed where every pixel is there."""
    if kind == "JPEG":
        yield from _jpeg_ways(data)
    elif kind == "PNG" and (ended := _ended_png(data)) is not None:
        yield Way(data=ended, fail_on="error", word="its end is missing, and every pixel is there")
    elif kind == "WebP" and (whole := _whole_webp(data)) is not None:
        yield Way(data=whole, fail_on="error", word="its end is missing, and every pixel is there")


def last_way(kind: str, data: bytes) -> Way:
    """The way that gives what is there, whatever is missing."""
    if kind == "JPEG":
        jpeg = _Jpeg(data)
        data = jpeg.header + data[jpeg.start : jpeg.end] + b"\xff\xd9"
    elif kind == "WebP":
        data = _padded_webp(data)
    return Way(data=data, fail_on="none", word="")


# JPEG (ITU-T T.81)

_MARKER = re.compile(rb"\xff+([\xc0-\xcf\xd9-\xfe])")  # in the data of pixels: neither stuffing nor a restart
_ONES = b"\xff\x00" * 16
"""Data of pixels that no Huffman code begins: whoever must read them has no data left."""
_PADDING = 16
_HARMLESS = ("Unknown Adobe color transform code", "unknown JFIF revision number")


class _Jpeg:
    """Where the parts of a JPEG are."""

    def __init__(self, data: bytes) -> None:
        stream = BytesIO(data)
        segments = list(jpeg_segments(stream))
        self.start = max(stream.tell() - 2, 2)  # of the first scan
        parts = [struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments]
        self.header = b"\xff\xd8" + b"".join(parts)  # without bytes between the segments
        frames = [
            (marker, body) for marker, body in segments if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        ]
        self.progressive = any(marker in (0xC2, 0xC6, 0xCA, 0xCE) for marker, _ in frames)
        body = frames[0][1] if frames else b""
        self.components = [body[6 + 3 * index] for index in range(body[5])] if len(body) >= 6 + 3 * body[5:6][0] else []
        self.end, self.ended, self.scans = len(data), False, [self.start]
        for found in _MARKER.finditer(data, self.start + 2):
            if found[1] == b"\xd9":
                self.end, self.ended = found.start(), True
                break
            if found[1] == b"\xda":
                self.scans.append(found.end() - 2)
        if not self.ended and data.endswith(b"\xff"):
            self.end -= 1
        if len(set(data[self.end - _PADDING : self.end])) == 1:  # some cameras fill up with one byte
            self.end = len(data[: self.end].rstrip(data[self.end - 1 : self.end]))

    def complete(self, data: bytes) -> bool:
        """Whether the scans bring all the bits of every component (G.1.1.1)."""
        low = {
            (component, index): 99
            for component in self.components
            for index in (range(64) if self.progressive else [0])
        }
        for at in self.scans:
            count = data[at + 4] if at + 4 < len(data) else 0
            tail = data[at + 5 + 2 * count : at + 8 + 2 * count]
            if len(tail) < 3:
                break
            first, last, below = (tail[0], tail[1], tail[2] & 15) if self.progressive else (0, 0, 0)
            for component in data[at + 5 : at + 5 + 2 * count : 2]:
                for index in range(first, min(last, 63) + 1):
                    low[component, index] = min(low.get((component, index), 99), below)
        return bool(low) and not any(low.values())


def _jpeg_ways(data: bytes) -> Iterator[Way]:
    jpeg = _Jpeg(data)
    if not jpeg.complete(data):
        return
    pixels = data[jpeg.start : jpeg.end]
    word = "" if jpeg.ended else "its end marker is missing, and every pixel is there"
    one_scan = len(jpeg.scans) == 1 and not jpeg.progressive
    # Of one scan, what libvips decodes ends in bytes that no code begins: a picture that lacks data meets them.
    yield Way(
        data=jpeg.header + pixels + (_ONES if one_scan else b"\xff\xd9"), fail_on="warning", word=word,
        used_up=len(jpeg.header) + len(pixels) if one_scan else None,
    )  # fmt: skip


def harmless(reason: str) -> bool:
    """Whether what libjpeg warns of is nothing to the pixels."""
    return any(words in reason for words in _HARMLESS)


def ends_early(way: Way) -> bytes | None:
    """The data of a JPEG without the last byte of its pixels, which must fail, since it is needed."""
    if way.used_up is None or way.data is None:
        return None
    return way.data[: way.used_up - 1]


# PNG


def _ended_png(data: bytes) -> bytes | None:
    """With the end that is missing: of the last chunk of pixels, and of the file; None where neither is."""
    at, last = 8, None
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name = data[at + 4 : at + 8]
        if name == b"IEND" or not name.isalpha():
            break
        if at + 12 + length > len(data):
            if name == b"IDAT":
                body = data[at + 8 : at + 8 + length]
                last = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            break
        at += 12 + length
    end = b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return None if data[at:] == end else data[:at] + (last or b"") + end


# WebP


def _whole_webp(data: bytes) -> bytes | None:
    """Without a last chunk that is cut and not of pixels; None where one of pixels is cut."""
    end = 12
    for name, at, length in riff_chunks(BytesIO(data)):
        if at + length > len(data):
            if name in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF", b"VP8X"):
                return None
            break
        end = at + length + length % 2
    body = data[8:end].ljust(end - 8, b"\0")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _padded_webp(data: bytes) -> bytes:
    """Filled up with zeros to the lengths that it says, so that what is there is decoded."""
    said = max((at + length + length % 2 for _, at, length in riff_chunks(BytesIO(data))), default=len(data))
    said = min(said, 2 * len(data) + 2**20)
    body = data[8:].ljust(max(said, len(data)) - 8, b"\0")
    return b"RIFF" + struct.pack("<I", len(body)) + body
