"""IPTC-IIM: found in what Photoshop wrapped it in, wrapped again, and as XMP for formats without a place for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_IPTC = 0x0404
# IIM record 2, data set -> the XMP property it is (IPTC Core 1.1; Metadata Working Group 2.0), and of which kind
_PROPERTIES = {
    5: ("dc:title", "Alt"), 10: ("photoshop:Urgency", ""), 15: ("photoshop:Category", ""),
    20: ("photoshop:SupplementalCategories", "Bag"), 25: ("dc:subject", "Bag"), 40: ("photoshop:Instructions", ""),
    55: ("photoshop:DateCreated", ""), 65: ("xmp:CreatorTool", ""), 80: ("dc:creator", "Seq"),
    85: ("photoshop:AuthorsPosition", ""), 90: ("photoshop:City", ""), 92: ("Iptc4xmpCore:Location", ""),
    95: ("photoshop:State", ""), 100: ("Iptc4xmpCore:CountryCode", ""), 101: ("photoshop:Country", ""),
    103: ("photoshop:TransmissionReference", ""), 105: ("photoshop:Headline", ""), 110: ("photoshop:Credit", ""),
    115: ("photoshop:Source", ""), 116: ("dc:rights", "Alt"), 120: ("dc:description", "Alt"),
    122: ("photoshop:CaptionWriter", ""),
}  # fmt: skip
_SILENT = {0}  # the version of the record says nothing about the picture
_TIME = 60

Property = tuple[str, str, list[str]]
"""An XMP name, its kind ("", or Alt, Bag, Seq) and its values."""


def iptc_of_resources(blocks: bytes) -> bytes | None:
    """The IIM records in Photoshop's image resources, or the bytes themselves where they are such records."""
    blocks = blocks.removeprefix(b"Photoshop 3.0\0")
    if blocks[:1] == b"\x1c":
        return blocks
    at = 0
    while blocks[at : at + 4] == b"8BIM":
        (number,) = struct.unpack(">H", blocks[at + 4 : at + 6].ljust(2, b"\0"))
        length_of_name = blocks[at + 6] if at + 6 < len(blocks) else 0
        at += 6 + length_of_name + 1 + (length_of_name + 1) % 2
        (size,) = struct.unpack(">I", blocks[at : at + 4].ljust(4, b"\0"))
        data = blocks[at + 4 : at + 4 + size]
        if number == _IPTC and len(data) == size and size:
            return data
        at += 4 + size + size % 2
    return None


def resources_of_iptc(iptc: bytes) -> bytes:
    """The records as Photoshop's image resources."""
    return b"8BIM" + struct.pack(">HHI", _IPTC, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)


def as_properties(iptc: bytes) -> tuple[list[Property], list[str]]:
    """(what the records say as XMP properties, the data sets that have none, as in "2:118")."""
    records = list(_records(iptc))
    encoding = "utf-8" if (1, 90, b"\x1b%G") in records else None
    found: dict[str, Property] = {}
    left: list[str] = []
    for record, number, data in records:
        text = _text(data, encoding)
        if record == 2 and number in _PROPERTIES:
            name, kind = _PROPERTIES[number]
            found.setdefault(name, (name, kind, []))[2].append(text)
        elif record == 2 and number not in (*_SILENT, _TIME):
            left.append(f"{record}:{number:02}")
    date = found.get("photoshop:DateCreated")
    times = [_text(data, encoding) for record, number, data in records if (record, number) == (2, _TIME)]
    if date is not None:
        date[2][:] = [_date(date[2][0], times[0] if times else "")]
    return list(found.values()), sorted(set(left))


def _date(day: str, time: str) -> str:
    if len(day) != 8:
        return day
    found = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    if len(time) >= 6:
        found += f"T{time[:2]}:{time[2:4]}:{time[4:6]}"
        found += f"{time[6:9]}:{time[9:11]}" if len(time) == 11 else ""
    return found


def _records(iptc: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(record, data set, data) of each; ends at the first that is damaged."""
    at = 0
    while at + 5 <= len(iptc) and iptc[at] == 0x1C:
        record, number, size = struct.unpack(">BBH", iptc[at + 1 : at + 5])
        at += 5
        if size & 0x8000:  # so many bytes hold the size
            width = size & 0x7FFF
            size = int.from_bytes(iptc[at : at + width], "big") if width <= 4 else len(iptc)
            at += width
        if at + size > len(iptc):
            return
        yield record, number, iptc[at : at + size]
        at += size


def _text(data: bytes, encoding: str | None) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1" if encoding is None else encoding, "replace")
