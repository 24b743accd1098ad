"""XMP packets: our record of what was done goes in as an rdf:Description of its own, and comes out again.

The packet a photo came with is kept byte for byte, but for what describes the old file (orientation, dimensions,
thumbnails) and an earlier record of ours. It is handled as text so that nothing else in it changes; it is never
trusted: a document type or entity declaration makes it count as damaged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from supir.errors import OptionError

__all__ = ["NAMESPACE", "add_record", "clean_xmp", "record_of"]

NAMESPACE = "urn:supir:record:1"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
# A stranger's text meets these patterns: none may look beyond the next "<", or a hostile packet would take hours.
_OURS = re.compile(rf'<rdf:Description [^<>]*xmlns:supir="{NAMESPACE}">')
_END_OF_RDF = re.compile(r"</(?:\w{1,40}:)?RDF\s*>")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STALE_NAMES = r"(?:tiff:Orientation|tiff:ImageWidth|tiff:ImageLength|exif:PixelXDimension|exif:PixelYDimension)"
_STALE = re.compile(
    rf"""\s{_STALE_NAMES}\s*=\s*(?:"[^"<]*"|'[^'<]*')|<({_STALE_NAMES})\b[^<>]*(?:/>|(?<!/)>[^<]*</\1\s*>)"""
)
_THUMBNAILS = re.compile(r"<xmp:Thumbnails\b[^<>]*(?<!/)>")
_EMPTY_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">\n'
    '</rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
)


def clean_xmp(packet: bytes) -> bytes | None:
    """The packet without what describes the old file; None if it is damaged."""
    text = _text_of(packet)
    if text is None:
        return None
    cleaned = _without(_STALE.sub("", text), _THUMBNAILS, "</xmp:Thumbnails>")
    return cleaned.encode() if _parse(cleaned) is not None else text.encode()


def add_record(packet: bytes | None, record: Mapping[str, str]) -> bytes:
    """The packet (a new one if there is none or it is damaged) with `record` in place of an earlier record.

    Raises:
        OptionError: a key that is not a plain name (letters, digits, `_`, `-`, `.`, not beginning with a digit).
    """
    lines = []
    for key, value in record.items():
        if not _KEY.fullmatch(key):
            raise OptionError(f"record key {key!r}: allowed are letters, digits, '_', '-' and '.', a letter first")
        clean = escape(_NOT_XML.sub("\ufffd", str(value)), {"\r": "&#13;"})
        lines.append(f" <supir:{key}>{clean}</supir:{key}>\n")
    head = f'<rdf:Description xmlns:rdf="{_RDF}" rdf:about="" xmlns:supir="{NAMESPACE}">\n'
    ours = head + "".join(lines) + "</rdf:Description>\n"
    text = _text_of(packet) if packet is not None else None
    for candidate in (text, _EMPTY_PACKET):
        kept = "" if candidate is None else _without(candidate, _OURS, "</rdf:Description>\n")
        ends = list(_END_OF_RDF.finditer(kept))
        whole = kept[: ends[-1].start()] + ours + kept[ends[-1].start() :] if ends else ""
        if _parse(whole) is not None:
            return whole.encode()
    raise AssertionError("our own empty packet did not take the record")


def record_of(packet: bytes | None) -> dict[str, str]:
    """What `add_record` put into the packet, in its order; empty if it holds none."""
    text = None if packet is None else _text_of(packet)
    root = None if text is None else _parse(text)
    if root is None:
        return {}
    prefix = f"{{{NAMESPACE}}}"
    return {
        element.tag.removeprefix(prefix): element.text or ""
        for description in root.iter(f"{{{_RDF}}}Description")
        for element in description
        if isinstance(element.tag, str) and element.tag.startswith(prefix)
    }


def _without(text: str, start: re.Pattern[str], end: str) -> str:
    """The text without what lies from each `start` to the next `end`."""
    parts, at = [], 0
    while (opening := start.search(text, at)) and (closing := text.find(end, opening.end())) >= 0:
        parts.append(text[at : opening.start()])
        at = closing + len(end)
    return "".join(parts) + text[at:]


def _text_of(packet: bytes) -> str | None:
    try:
        text = packet.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if _parse(text) is not None else None


def _parse(text: str) -> ElementTree.Element | None:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        return ElementTree.fromstring(text.lstrip("\ufeff \t\r\n").encode())
    except (ElementTree.ParseError, ValueError, UnicodeEncodeError):
        return None
