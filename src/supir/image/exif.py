"""EXIF directories: read, cleaned, written; and put into TIFF files, which libvips leaves without.

An EXIF block is a small TIFF file (EXIF 3.0, 4.5): a header and directories of records. Only what describes the
photograph is kept (camera, lens, exposure, date, place, author); what describes the old file is not: orientation
becomes 1, thumbnail and dimensions go, resolution and colour space are read and written anew where they belong.
Nothing here raises on a damaged block: it is dropped.

Not by Pillow's Exif: TIFF files need the directories read and written anyway, pages and BigTIFF included, and entries
pass through here byte by byte, within bounds, where Pillow reads values and writes them anew.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from supir.image.directories import (
    EXIF_POINTER,
    GPS_POINTER,
    Directory,
    composed,
    header_of,
    inside,
    numbers,
    rationals,
    read_directories,
    records_of,
)
from supir.image.profiles import ADOBE_RGB, Colours

_INTEROP_POINTER = 0xA005
_ORIENTATION, _COLOR_SPACE, _GAMMA, _INTEROP_INDEX = 0x0112, 0xA001, 0xA500, 1
_WHITE_POINT, _PRIMARIES = 0x013E, 0x013F
_X_RESOLUTION, _Y_RESOLUTION, _UNIT = 0x011A, 0x011B, 0x0128
_INCHES = {2: 1.0, 3: 2.54}  # unit -> by what its number becomes one an inch
# DocumentName, ImageDescription, Make, Model, PageName, Software, DateTime, Artist, HostComputer, Rating, Copyright,
# the XP* fields of Windows
_KEPT_IN_IMAGE = {
    0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298,
    *range(0x9C9B, 0x9CA0),
}  # fmt: skip
_STALE_IN_EXIF = {0xA002, 0xA003, _INTEROP_POINTER, _GAMMA}  # width, height; the colour space is said by a profile
_UNCALIBRATED = 0xFFFF
_MAX_SEGMENT = 65_500


@dataclass(frozen=True, kw_only=True)
class Exif:
    """The directories of a block, or of a TIFF file; empty where it is damaged."""

    image: Directory = field(default_factory=dict)
    exif: Directory = field(default_factory=dict)
    gps: Directory = field(default_factory=dict)
    interop: Directory = field(default_factory=dict)

    @property
    def cleaned(self) -> bytes | None:
        """As it may stand in a new file, beginning with b"Exif\\0\\0"; None if nothing is left."""
        image = {tag: entry for tag, entry in self.image.items() if tag in _KEPT_IN_IMAGE}
        exif = {tag: entry for tag, entry in self.exif.items() if tag not in _STALE_IN_EXIF}
        if numbers(exif).get(_COLOR_SPACE, 1) != 1:
            exif[_COLOR_SPACE] = (3, 1, struct.pack("<H", _UNCALIBRATED))  # what it was is said by a profile
        if not (image or exif or self.gps):
            return None
        image[_ORIENTATION] = (3, 1, struct.pack("<H", 1))
        return _block(image, exif, self.gps)

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Dots an inch, across and down, where it says so."""
        return resolution_of(self.image)

    @property
    def colours(self) -> Colours | None:
        """The colour space where it is said to be another than sRGB (EXIF 3.0, tag 0xA001; DCF 2.0, 5.2)."""
        said = numbers(self.exif).get(_COLOR_SPACE)
        if said == 2 or (said == _UNCALIBRATED and self.interop.get(_INTEROP_INDEX, (0, 0, b""))[2][:3] == b"R03"):
            return ADOBE_RGB
        gamma = rationals(self.exif.get(_GAMMA))
        white, points = rationals(self.image.get(_WHITE_POINT)), rationals(self.image.get(_PRIMARIES))
        if said != _UNCALIBRATED or len(gamma) != 1 or len(white) != 2 or len(points) != 6:
            return None
        return Colours(points, (white[0], white[1]), (gamma[0],), "as EXIF says")


def read_exif(block: bytes | None) -> Exif:
    """The directories of a block, with or without b"Exif\\0\\0"."""
    stream = io.BytesIO((block or b"").removeprefix(b"Exif\0\0"))
    found = read_directories(stream, 1)
    return exif_of(stream, found[0]) if found else Exif()


def exif_of(stream: BinaryIO, directory: Directory) -> Exif:
    """A directory of an open TIFF file, with those that it points to."""
    image = dict(directory)
    exif, gps = (inside(stream, image.pop(pointer, None)) for pointer in (EXIF_POINTER, GPS_POINTER))
    return Exif(image=image, exif=exif, gps=gps, interop=inside(stream, exif.get(_INTEROP_POINTER)))


def resolution_of(directory: Directory) -> tuple[float, float] | None:
    """Dots an inch, across and down, where a directory says so."""
    across, down = rationals(directory.get(_X_RESOLUTION)), rationals(directory.get(_Y_RESOLUTION))
    inch = _INCHES.get(numbers(directory).get(_UNIT, 2))
    if inch is None or len(across) != 1 or not 0 < across[0] < 1e6:
        return None
    down = down if len(down) == 1 and 0 < down[0] < 1e6 else across
    return across[0] * inch, down[0] * inch


def resolution_tags(dpi: tuple[float, float] | None) -> Directory:
    """What says dots an inch; without, that no print size is claimed."""
    unit = 1 if dpi is None else 2
    across, down = ((3 if value == int(value) else 0, value) for value in (dpi or (1.0, 1.0)))
    found: Directory = {_UNIT: (3, 1, struct.pack("<H", unit))}
    for tag, (whole, value) in ((_X_RESOLUTION, across), (_Y_RESOLUTION, down)):
        below = 1 if whole else 1000
        found[tag] = (5, 1, struct.pack("<II", round(value * below), below))
    return found


def with_resolution(block: bytes | None, dpi: tuple[float, float] | None, *, always: bool) -> bytes | None:
    """A cleaned block that says the resolution; ``always``: a new one where there is none."""
    if dpi is None or (block is None and not always):
        return block
    found = read_exif(block)
    image = {_ORIENTATION: (3, 1, struct.pack("<H", 1)), **found.image, **resolution_tags(dpi)}
    return _block(image, found.exif, found.gps)


def fitting_a_segment(block: bytes | None) -> tuple[bytes | None, str]:
    """(a cleaned block of the size that JPEG has room for, what was left out for it)."""
    if block is None or len(block) <= _MAX_SEGMENT:
        return block, ""
    found = read_exif(block)
    exif = dict(found.exif)
    for tag, name in ((0x927C, "the MakerNote"), (0x9286, "the UserComment")):
        if tag in exif:
            del exif[tag]
            smaller = _block(found.image, exif, found.gps)
            if len(smaller) <= _MAX_SEGMENT:
                return smaller, name
    return None, "EXIF"


def _block(image: Directory, exif: Directory, gps: Directory) -> bytes:
    chunk, first = composed(image, exif, gps, start=8)
    return b"Exif\0\0II*\0" + struct.pack("<I", first) + chunk


def append_to_tiff(stream: BinaryIO, block: bytes | None, tags: Directory) -> None:
    """Gives an open little-endian TIFF file (mode r+b) the entries of a cleaned EXIF block, and others.

    The new first directory goes to the end of the file and the header points to it; the pixels stay where they are.
    """
    found = read_exif(block)
    layout, offset = header_of(stream)
    records, following = records_of(stream, layout, offset)
    image = {**found.image, **tags}
    replaced = {*image, EXIF_POINTER, GPS_POINTER}
    kept = [record for record in records if struct.unpack("<H", record[:2])[0] not in replaced]
    end = stream.seek(0, os.SEEK_END)
    end += stream.write(b"\0" * (end % 2))
    chunk, first = composed(image, found.exif, found.gps, start=end, records=kept, following=following, layout=layout)
    stream.write(chunk)
    stream.seek(layout.at)
    stream.write(struct.pack(layout.offset, first))
