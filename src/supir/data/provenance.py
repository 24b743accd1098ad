"""Where a photograph comes from and under which licence, and the words that came with it.

The most particular statement wins: the picture's own record (``photo.json``), then the list of its folder
(``licences.csv`` or ``licences.json``), then the file's XMP, then what the builder says about all pictures.
A copyright notice (EXIF, XMP) is recorded, but it is not a licence.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from supir.data.sources import LISTS, Companion, Source, decoded
from supir.errors import ImageReadError, SupirError

UNKNOWN = "unknown"
"""The licence of a picture that states none."""

_MAX_COMPANION = 1_000_000
_MAX_LIST = 1_000_000_000
_MAX_TEXT = 4000
_TEXTS = ("caption", "licence", "author", "copyright", "url")
_SAID = (*_TEXTS, "refused")
_SPELLINGS = {"license": "licence", "source": "url", "description": "caption"}
_COPYRIGHT, _ARTIST = 0x8298, 0x013B
_XMP = {
    "{http://creativecommons.org/ns#}license": "licence",
    "{http://ns.adobe.com/xap/1.0/rights/}WebStatement": "licence",
    "{http://purl.org/dc/elements/1.1/}rights": "copyright",
    "{http://purl.org/dc/elements/1.1/}creator": "author",
}
_RESOURCE = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}resource"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What is said about a picture; empty texts where nothing is said."""

    licence: str = ""
    """Its name or address."""
    author: str = ""
    copyright: str = ""
    """The notice in the file."""
    url: str = ""
    """Where it was published."""
    caption: str = ""
    negative: bool = False
    """An example of bad quality, for the negative prompt."""
    refused: str = ""
    """Why words beside the picture were not taken; empty where all were."""

    def over(self, other: Provenance) -> Provenance:
        """This, with what it does not say taken from `other`."""
        texts: dict[str, Any] = {name: getattr(self, name) or getattr(other, name) for name in _SAID}
        return replace(self, **texts, negative=self.negative or other.negative)


def provenance_of(source: Source, exif: bytes | None, xmp: bytes | None, licence: str | None) -> Provenance:
    """Everything said about a picture, by the files beside it, its EXIF block and its XMP packet.

    ``licence`` is that of the pictures that state none themselves; unset: `UNKNOWN`.

    Raises:
        ImageReadError: a file beside the picture cannot be understood.
    """
    said = Provenance()
    for beside in source.companions:  # the more particular first
        name = Path(beside.path).name
        if name in LISTS:
            said = said.over(read_list(beside).get(Path(source.path).name, Provenance()))
        elif name.endswith(".txt"):
            said = said.over(_words(beside, source.path))
        else:
            said = said.over(_record(_text_of(beside, source.path), beside.path, source.path))
    said = said.over(_of_xmp(xmp)).over(_of_exif(exif))
    return said.over(Provenance(licence=licence or UNKNOWN))


@functools.lru_cache(maxsize=64)
def read_list(companion: Companion) -> dict[str, Provenance]:
    """A list of licences: file name to what it says. Read once a process.

    ``licences.csv`` has a header with ``file`` and ``licence`` and, where wanted, ``author``, ``copyright``, ``url``,
    ``caption`` and ``negative``. ``licences.json`` is an object of file names to a licence or to an object of those
    names.

    Raises:
        ImageReadError: it is not such a list.
    """
    path = companion.path
    if companion.size > _MAX_LIST:
        raise ImageReadError(f"{path}: {companion.size} bytes; a list of licences may have {_MAX_LIST}", path)
    try:
        text = decoded(Path(path).read_bytes(), path)
        if path.endswith(".json"):
            table = json.loads(text)
            if not isinstance(table, dict):
                raise ValueError("an object of file names is needed")
            rows = {name: row if isinstance(row, dict) else {"licence": row} for name, row in table.items()}
        else:
            reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
            if not {"file", "licence"} <= {_spelled(name) for name in reader.fieldnames or ()}:
                raise ValueError("its first line must name the columns, file and licence among them")
            rows = {row["file"]: row for row in reader}
        return {name: _from_row(row) for name, row in rows.items()}
    except ImageReadError:
        raise
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise ImageReadError(f"{path}: not a list of licences: {error}", path) from error


def _record(text: str, path: str, picture: str) -> Provenance:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImageReadError(f"{path}: not JSON: {error}", picture) from error
    if not isinstance(row, dict):
        raise ImageReadError(f"{path}: a JSON object with caption, licence and so on is needed", picture)
    return _from_row(row)


def _from_row(row: dict[Any, Any]) -> Provenance:
    values = {_spelled(name): value for name, value in row.items()}
    texts: dict[str, Any] = {name: _clean(values[name]) for name in _TEXTS if isinstance(values.get(name), str)}
    return Provenance(**texts, negative=str(values.get("negative")).strip().lower() in ("true", "1", "yes"))


def _spelled(name: Any) -> str:
    plain = str(name).strip().lower()
    return _SPELLINGS.get(plain, plain)


def _words(companion: Companion, picture: str) -> Provenance:
    """The caption in a text file; one that cannot be read costs the picture its words alone."""
    try:
        return Provenance(caption=_clean(_text_of(companion, picture)))
    except ImageReadError as error:
        return Provenance(refused=str(error))


def _text_of(companion: Companion, picture: str) -> str:
    if companion.size > _MAX_COMPANION:
        raise ImageReadError(f"{companion.path}: {companion.size} bytes; allowed are {_MAX_COMPANION}", picture)
    try:
        return decoded(Path(companion.path).read_bytes(), companion.path, picture)
    except OSError as error:
        raise ImageReadError(f"{companion.path}: cannot be read: {error.strerror}", picture) from error


def _of_exif(block: bytes | None) -> Provenance:
    if block is None:
        return Provenance()
    from PIL import Image

    exif = Image.Exif()
    try:
        exif.load(block)
        fields = {"copyright": exif.get(_COPYRIGHT), "author": exif.get(_ARTIST)}
    except Exception:  # a stranger's block: whatever Pillow makes of it, the picture itself is sound
        return Provenance()
    said: dict[str, Any] = {name: _clean(value) for name, value in fields.items() if isinstance(value, str)}
    return Provenance(**said)


def _of_xmp(packet: bytes | None) -> Provenance:
    """From the packet as `supir.image` hands it on: it parses, and declares no entities."""
    if packet is None:
        return Provenance()
    try:
        root = ElementTree.fromstring(packet.rstrip(b"\0").decode("utf-8").lstrip("\ufeff \t\r\n").encode())
    except (ElementTree.ParseError, ValueError):
        return Provenance()
    said: dict[str, Any] = {}
    for element in root.iter():
        for tag, value in element.attrib.items():
            if tag in _XMP:
                said.setdefault(_XMP[tag], _clean(value))
        name = _XMP.get(str(element.tag))
        if name is not None:
            text = element.attrib.get(_RESOURCE) or " ".join("".join(element.itertext()).split())
            if text:
                said.setdefault(name, _clean(text))
    return Provenance(**said)


def _clean(text: Any) -> str:
    """One line without control characters, of a sane length."""
    printable = "".join(letter if letter.isprintable() else " " for letter in str(text)[:_MAX_TEXT])
    return " ".join(printable.split())


def check_lists(sources: list[Source]) -> None:
    """Reads every list of licences once: a mistake in one stops the build instead of costing a folder its licences.

    Raises:
        SupirError: as `read_list`.
    """
    companions = {beside for source in sources for beside in source.companions if Path(beside.path).name in LISTS}
    for companion in sorted(companions, key=lambda beside: beside.path):
        try:
            read_list(companion)
        except ImageReadError as error:
            raise SupirError(str(error)) from error
