"""EXIF directories: read, cleaned, written; and put into TIFF files, which libvips leaves without.

An EXIF block is a small TIFF file (EXIF 3.0, 4.5): a header and directories of 12-byte records. Only what describes
the photograph is kept (camera, lens, exposure, date, place, author); what describes the old file is not: orientation
becomes 1, thumbnail, dimensions and resolution go. Nothing here raises on a damaged block: it is dropped. MakerNotes
are kept as far as the writer of the format keeps them.
"""

from __future__ import annotations

import io
import os
import struct
from typing import BinaryIO

__all__ = ["append_exif_to_tiff", "clean_exif", "exif_of_tiff", "tiff_numbers"]

Entry = tuple[int, int, bytes]  # type, count, payload in little-endian order
Directory = dict[int, Entry]

_EXIF_POINTER, _GPS_POINTER = 0x8769, 0x8825
_ORIENTATION = 0x0112
# ImageDescription, Make, Model, Software, DateTime, Artist, HostComputer, Rating, Copyright, the XP* fields of Windows
_KEPT_IN_IMAGE = {
    0x010E,
    0x010F,
    0x0110,
    0x0131,
    0x0132,
    0x013B,
    0x013C,
    0x4746,
    0x4749,
    0x8298,
    *range(0x9C9B, 0x9CA0),
}
_STALE_IN_EXIF = {0xA002, 0xA003, 0xA005}  # width, height, the pointer to the interoperability directory
_UNIT_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8}
_UNITS = {5: 2, 10: 2}  # rationals are two numbers
_MAX_PAYLOAD = 60_000  # a block must fit a JPEG segment
_MAX_RECORDS = 1000


def clean_exif(block: bytes) -> bytes | None:
    """The block (with or without b"Exif\\0\\0") as it may stand in a new file; None if nothing is left or it is
    damaged.
    """
    return _clean(io.BytesIO(block.removeprefix(b"Exif\0\0")))


def exif_of_tiff(stream: BinaryIO) -> bytes | None:
    """The cleaned EXIF block of an open TIFF file."""
    return _clean(stream)


def tiff_numbers(stream: BinaryIO) -> dict[int, int]:
    """The whole numbers of the first directory of an open TIFF file, by tag; of several, the first.

    Empty for a damaged file and a BigTIFF.
    """
    try:
        order, offset = _header(stream)
        directory = _read_directory(stream, order, offset)
    except (ValueError, struct.error, OSError):
        return {}
    sizes = {tag: _UNIT_SIZE[kind] for tag, (kind, _, _) in directory.items() if kind in (1, 3, 4)}
    return {tag: int.from_bytes(directory[tag][2][:size], "little") for tag, size in sizes.items()}


def append_exif_to_tiff(stream: BinaryIO, block: bytes) -> None:
    """Gives an open little-endian TIFF file (mode r+b) the entries of a cleaned EXIF block.

    The new first directory goes to the end of the file and the header points to it; the pixels stay where they are. A
    file of another kind (big-endian, BigTIFF) is left as it is.
    """
    source = io.BytesIO(block.removeprefix(b"Exif\0\0"))
    try:
        directories = _read_all(source)
        order, offset = _header(stream)
    except (ValueError, struct.error):
        return
    if order != "<":
        return
    stream.seek(offset)
    (num_records,) = struct.unpack("<H", stream.read(2))
    records = [stream.read(12) for _ in range(num_records)]
    (following,) = struct.unpack("<I", stream.read(4))
    replaced = {*directories[0], _EXIF_POINTER, _GPS_POINTER}
    records = [record for record in records if struct.unpack("<H", record[:2])[0] not in replaced]
    end = stream.seek(0, os.SEEK_END)
    end += stream.write(b"\0" * (end % 2))
    chunk, first = _compose(*directories, start=end, records=records, following=following)
    if first < 2**32:
        stream.write(chunk)
        stream.seek(4)
        stream.write(struct.pack("<I", first))


def _clean(stream: BinaryIO) -> bytes | None:
    try:
        image, exif, gps = _read_all(stream)
    except (ValueError, struct.error, OSError):
        return None
    image = {tag: entry for tag, entry in image.items() if tag in _KEPT_IN_IMAGE}
    exif = {tag: entry for tag, entry in exif.items() if tag not in _STALE_IN_EXIF}
    if not (image or exif or gps):
        return None
    image[_ORIENTATION] = (3, 1, struct.pack("<H", 1))
    chunk, first = _compose(image, exif, gps, start=8)
    if len(chunk) > _MAX_PAYLOAD and 0x927C in exif:  # the MakerNote is the largest, and the least portable
        del exif[0x927C]
        chunk, first = _compose(image, exif, gps, start=8)
    return None if len(chunk) > _MAX_PAYLOAD else b"Exif\0\0II*\0" + struct.pack("<I", first) + chunk


def _read_all(stream: BinaryIO) -> tuple[Directory, Directory, Directory]:
    """(image, exif, gps)."""
    order, offset = _header(stream)
    image = _read_directory(stream, order, offset)
    found: list[Directory] = []
    for pointer in (_EXIF_POINTER, _GPS_POINTER):
        entry = image.pop(pointer, None)
        directory: Directory = {}
        if entry is not None and len(entry[2]) == 4:
            try:
                directory = _read_directory(stream, order, struct.unpack("<I", entry[2])[0])
            except (ValueError, struct.error):
                directory = {}  # the rest may still be sound
        found.append(directory)
    return image, found[0], found[1]


def _header(stream: BinaryIO) -> tuple[str, int]:
    """Byte order as struct writes it, and where the first directory is."""
    stream.seek(0)
    head = stream.read(8)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[:4])
    if order is None or len(head) < 8:
        raise ValueError("not a classic TIFF header")
    return order, struct.unpack(order + "I", head[4:])[0]


def _read_directory(stream: BinaryIO, order: str, offset: int) -> Directory:
    """The records of one directory; those too long, of unknown type or outside the file are left out."""
    stream.seek(offset)
    (num_records,) = struct.unpack(order + "H", stream.read(2))
    if num_records > _MAX_RECORDS:
        raise ValueError(f"{num_records} records in a directory")
    table = stream.read(12 * num_records)
    directory: Directory = {}
    for start in range(0, len(table) - 11, 12):
        tag, kind, count = struct.unpack(order + "HHI", table[start : start + 8])
        size = _UNIT_SIZE.get(kind, 0) * _UNITS.get(kind, 1) * count
        if not 0 < size <= _MAX_PAYLOAD:
            continue
        payload = table[start + 8 : start + 8 + min(size, 4)]
        if size > 4:
            stream.seek(struct.unpack(order + "I", table[start + 8 : start + 12])[0])
            payload = stream.read(size)
        if len(payload) == size:
            directory[tag] = (kind, count, _little_endian(payload, kind, order))
    return directory


def _little_endian(payload: bytes, kind: int, order: str) -> bytes:
    unit = _UNIT_SIZE[kind]
    if order == "<" or unit == 1:
        return payload
    return b"".join(payload[start : start + unit][::-1] for start in range(0, len(payload), unit))


def _compose(
    image: Directory,
    exif: Directory,
    gps: Directory,
    *,
    start: int,
    records: list[bytes] | None = None,
    following: int = 0,
) -> tuple[bytes, int]:
    """The bytes of three directories that will lie at `start`, and where the first one begins.

    Args:
        image: becomes the first directory, together with the finished 12-byte `records`.
        exif: behind its pointer; left out when empty.
        gps: likewise.
        start: even offset in the file at which the bytes will be put.
        records: finished records that join the first directory.
        following: offset of the directory after the first.
    """
    chunk = bytearray()

    def place(directory: Directory, finished: list[bytes], after: int) -> int:
        placed = list(finished)
        for tag, (kind, count, payload) in sorted(directory.items()):
            field = payload.ljust(4, b"\0")
            if len(payload) > 4:
                field = struct.pack("<I", start + len(chunk))
                chunk.extend(payload + b"\0" * (len(payload) % 2))
            placed.append(struct.pack("<HHI", tag, kind, count) + field)
        placed.sort(key=lambda record: int(struct.unpack("<H", record[:2])[0]))
        offset = start + len(chunk)
        chunk.extend(struct.pack("<H", len(placed)) + b"".join(placed) + struct.pack("<I", after))
        return offset

    first = dict(image)
    for pointer, directory in ((_EXIF_POINTER, exif), (_GPS_POINTER, gps)):
        if directory:
            first[pointer] = (4, 1, struct.pack("<I", place(directory, [], 0)))
    offset = place(first, records or [], following)
    return bytes(chunk), offset
