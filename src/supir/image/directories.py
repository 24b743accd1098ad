"""TIFF's directories, of which EXIF is made too: read, and written in the little-endian order."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import BinaryIO

Entry = tuple[int, int, bytes]  # type, count, payload in little-endian order
Directory = dict[int, Entry]

EXIF_POINTER, GPS_POINTER = 0x8769, 0x8825
_UNIT_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNITS = {5: 2, 10: 2}  # rationals are two numbers
_MAX_PAYLOAD, _MAX_ALL = 2**24, 2**25
_MAX_RECORDS = 1000
_MAX_DIRECTORIES = 1000


def numbers(directory: Directory) -> dict[int, int]:
    """The whole numbers of a directory, by tag; of several, the first."""
    return {tag: found[0] for tag, entry in directory.items() if (found := whole_numbers(entry))}


def whole_numbers(entry: Entry | None) -> tuple[int, ...]:
    """All the whole numbers of an entry; none where there are no such."""
    kind, _, payload = entry or (0, 0, b"")
    if kind not in (1, 3, 4, 13, 16, 18):
        return ()
    size = _UNIT_SIZE[kind]
    return tuple(int.from_bytes(payload[start : start + size], "little") for start in range(0, len(payload), size))


def rationals(entry: Entry | None) -> tuple[float, ...]:
    """The fractions of an entry as numbers; none where there are no such, or one is no number."""
    kind, _, payload = entry or (0, 0, b"")
    if kind in (11, 12):
        found = (value for (value,) in struct.iter_unpack("<f" if kind == 11 else "<d", payload))
        return tuple(value if math.isfinite(value) else 0.0 for value in found)
    if kind not in (5, 10) or len(payload) % 8:
        return ()
    pairs = list(struct.iter_unpack("<II" if kind == 5 else "<ii", payload))
    return tuple(above / below for above, below in pairs) if all(below for _, below in pairs) else ()


def inside(stream: BinaryIO, pointer: Entry | None) -> Directory:
    """The directory that an entry of another points to; empty where it is damaged."""
    offset = whole_numbers(pointer)
    if len(offset) != 1:
        return {}
    try:
        layout, _ = header_of(stream)
        records, _ = records_of(stream, layout, offset[0])
        return _entries(stream, layout, records, [_MAX_ALL])
    except (ValueError, struct.error, OSError, OverflowError):
        return {}  # the rest may still be sound


@dataclass(frozen=True)
class Layout:
    """How a TIFF file writes its directories (TIFF 6.0, section 2; BigTIFF)."""

    order: str = "<"
    large: bool = False

    @property
    def offset(self) -> str:
        """Of a directory or a value."""
        return self.order + ("Q" if self.large else "I")

    @property
    def count(self) -> str:
        """Of the records of a directory."""
        return self.order + ("Q" if self.large else "H")

    @property
    def record(self) -> str:
        """Tag, type and count; the value or its offset follows."""
        return self.order + ("HHQ" if self.large else "HHI")

    @property
    def room(self) -> int:
        """Bytes of a value that stand in the record itself."""
        return 8 if self.large else 4

    @property
    def at(self) -> int:
        """Where the header says where the first directory is."""
        return self.room


def read_directories(stream: BinaryIO, most: int = _MAX_DIRECTORIES) -> list[Directory]:
    """The directories of an open TIFF file, or of a block, in their order; as many as can be read."""
    found: list[Directory] = []
    seen: set[int] = set()
    try:
        layout, offset = header_of(stream)
        budget = [_MAX_ALL]
        while offset and offset not in seen and len(found) < most:
            seen.add(offset)
            records, following = records_of(stream, layout, offset)
            found.append(_entries(stream, layout, records, budget))
            offset = following
    except (ValueError, struct.error, OSError, OverflowError):
        pass
    return found


def header_of(stream: BinaryIO) -> tuple[Layout, int]:
    """How it is written, and where the first directory is."""
    stream.seek(0)
    head = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise ValueError("not a TIFF header")
    (version,) = struct.unpack(order + "H", head[2:4])
    layout = Layout(order, version == 43)
    if version not in (42, 43):
        raise ValueError("not a TIFF header")
    return layout, struct.unpack(layout.offset, head[layout.at : layout.at + layout.room])[0]


def records_of(stream: BinaryIO, layout: Layout, offset: int) -> tuple[list[bytes], int]:
    """The records of one directory as they stand there, and where the next directory is."""
    stream.seek(offset)
    (count,) = struct.unpack(layout.count, stream.read(struct.calcsize(layout.count)))
    if count > _MAX_RECORDS:
        raise ValueError(f"{count} records in a directory")
    size = struct.calcsize(layout.record) + layout.room
    table = stream.read(size * count)
    rest = stream.read(layout.room)
    following = struct.unpack(layout.offset, rest)[0] if len(rest) == layout.room else 0
    return [table[start : start + size] for start in range(0, len(table) - size + 1, size)], following


def _entries(stream: BinaryIO, layout: Layout, records: list[bytes], budget: list[int]) -> Directory:
    """What records say; those too long, of unknown type or outside the file are left out."""
    directory: Directory = {}
    size_of_head = struct.calcsize(layout.record)
    for record in records:
        tag, kind, count = struct.unpack(layout.record, record[:size_of_head])
        size = _UNIT_SIZE.get(kind, 0) * _UNITS.get(kind, 1) * count
        if not 0 < size <= min(_MAX_PAYLOAD, budget[0]):
            continue
        payload = record[size_of_head : size_of_head + min(size, layout.room)]
        if size > layout.room:
            stream.seek(struct.unpack(layout.offset, record[size_of_head:])[0])
            payload = stream.read(size)
            budget[0] -= size
        if len(payload) == size:
            directory[tag] = (kind, count, _little_endian(payload, kind, layout.order))
    return directory


def _little_endian(payload: bytes, kind: int, order: str) -> bytes:
    unit = _UNIT_SIZE[kind]
    if order == "<" or unit == 1:
        return payload
    return b"".join(payload[start : start + unit][::-1] for start in range(0, len(payload), unit))


def composed(
    image: Directory,
    exif: Directory,
    gps: Directory,
    *,
    start: int,
    records: list[bytes] | None = None,
    following: int = 0,
    layout: Layout = Layout(),
) -> tuple[bytes, int]:
    """The bytes of three directories that will lie at `start`, and where the first one begins.

    Args:
        image: becomes the first directory, together with the finished `records`.
        exif: behind its pointer; left out when empty.
        gps: likewise.
        start: even offset in the file at which the bytes will be put.
        records: finished records that join the first directory.
        following: offset of the directory after the first.
        layout: little-endian.
    """
    chunk = bytearray()

    def place(directory: Directory, finished: list[bytes], after: int) -> int:
        placed = list(finished)
        for tag, (kind, count, payload) in sorted(directory.items()):
            value = payload.ljust(layout.room, b"\0")
            if len(payload) > layout.room:
                value = struct.pack(layout.offset, start + len(chunk))
                chunk.extend(payload + b"\0" * (len(payload) % 2))
            placed.append(struct.pack(layout.record, tag, kind, count) + value)
        placed.sort(key=lambda record: int(struct.unpack("<H", record[:2])[0]))
        offset = start + len(chunk)
        chunk.extend(struct.pack(layout.count, len(placed)) + b"".join(placed) + struct.pack(layout.offset, after))
        return offset

    first = dict(image)
    for pointer, directory in ((EXIF_POINTER, exif), (GPS_POINTER, gps)):
        if directory:
            kind = 16 if layout.large else 4
            first[pointer] = (kind, 1, struct.pack(layout.offset, place(directory, [], 0)))
    offset = place(first, records or [], following)
    return bytes(chunk), offset
