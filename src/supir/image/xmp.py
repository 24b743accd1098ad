"""XMP packets: our record of what was done goes in as an rdf:Description of its own, and comes out again.

The packet a photo came with is kept byte for byte, but for what describes the old file (orientation, dimensions,
thumbnails) and an earlier record of ours. It is handled as text so that nothing else in it changes; it is never
trusted: a document type or entity declaration makes it count as damaged. Beside our record stands what it comes to in
the IPTC's words, the digital source type, in place of what the old file was.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Mapping
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from supir.errors import OptionError
from supir.image.marking import weightier

NAMESPACE = "urn:supir:record:1"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
# A stranger's text meets these patterns: none may look beyond the next "<", or a hostile packet would take hours.
_OURS = re.compile(rf'<rdf:Description [^<>]*xmlns:supir="{NAMESPACE}">')
_END_OF_RDF = re.compile(r"</(?:\w{1,40}:)?RDF\s*>")
_NOTE = "http://ns.adobe.com/xmp/note/"
_PREFIXES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "kept": "urn:supir:texts:1",
}
"""Of the properties that are added; ``kept`` is ours, for texts that have a keyword and no property."""
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_SOURCE_TYPE = f"{{{_EXTENSION}}}DigitalSourceType"


def _property(names: str) -> re.Pattern[str]:
    """Plain properties of these names, as attributes and as elements."""
    return re.compile(rf"""\s{names}\s*=\s*(?:"[^"<]*"|'[^'<]*')|<({names})\b[^<>]*(?:/>|(?<!/)>[^<]*</\1\s*>)""")


_STALE = _property(  # the last is where the C2PA manifest of the old file may be fetched
    r"(?:tiff:Orientation|tiff:ImageWidth|tiff:ImageLength|exif:PixelXDimension|exif:PixelYDimension|dcterms:provenance)"
)
_SOURCE_TYPES = _property(r"[\w.-]{1,40}:DigitalSourceType")
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


def add_record(packet: bytes | None, record: Mapping[str, str], source_type: str) -> bytes:
    """The packet (a new one if there is none or it is damaged) with `record` in place of an earlier record.

    Args:
        packet: of the picture as it came. What it said of its digital source is replaced, unless that says more, and
            stays in the record.
        record: plain names and texts.
        source_type: a URI of the IPTC's digital source types.

    Raises:
        OptionError: a key that is not a plain name (letters, digits, `_`, `-`, `.`, not beginning with a digit).
    """
    said, lines = source_type_of(packet), []
    if said is not None:
        record = {"input_source_type": said, **record}
        packet = _without_source_type(packet)
    for key, value in record.items():
        if not _KEY.fullmatch(key):
            raise OptionError(f"record key {key!r}: allowed are letters, digits, '_', '-' and '.', a letter first")
        lines.append(f" <supir:{key}>{_escaped(str(value))}</supir:{key}>\n")
    lines.append(f" {_said(weightier(source_type, said))}\n")
    head = f'<rdf:Description xmlns:rdf="{_RDF}" rdf:about="" xmlns:supir="{NAMESPACE}">\n'
    ours = head + "".join(lines) + "</rdf:Description>\n"
    return _with_description(packet, ours)


def source_type_of(packet: bytes | None) -> str | None:
    """What the packet says of the picture's digital source, a URI; None where it says nothing."""
    text = None if packet is None else _text_of(packet)
    root = None if text is None else _parse(text)
    for each in [] if root is None else root.iter():
        if each.tag == _SOURCE_TYPE:
            return (each.text or "").strip() or each.get(f"{{{_RDF}}}resource", "")
        if (found := each.get(_SOURCE_TYPE)) is not None:
            return found.strip()
    return None


def _said(source_type: str) -> str:
    element = "Iptc4xmpExt:DigitalSourceType"
    return f'<{element} xmlns:Iptc4xmpExt="{_EXTENSION}">{_escaped(source_type)}</{element}>'


def _without_source_type(packet: bytes | None) -> bytes | None:
    """None where it cannot be taken out."""
    cleaned = _SOURCE_TYPES.sub("", (None if packet is None else _text_of(packet)) or "").encode()
    return cleaned if _text_of(cleaned) is not None and source_type_of(cleaned) is None else None


def _with_description(packet: bytes | None, description: str) -> bytes:
    """The packet with an rdf:Description at its end, which takes the place of our earlier record if it is one."""
    text = _text_of(packet) if packet is not None else None
    for candidate in (text, _EMPTY_PACKET):
        kept = candidate or ""
        if NAMESPACE in description:
            kept = _without(kept, _OURS, "</rdf:Description>\n")
        ends = list(_END_OF_RDF.finditer(kept))
        whole = kept[: ends[-1].start()] + description + kept[ends[-1].start() :] if ends else ""
        if _parse(whole) is not None:
            return whole.encode()
    raise AssertionError("our own empty packet did not take the description")


def add_properties(packet: bytes | None, properties: Iterable[tuple[str, str, list[str]]]) -> bytes | None:
    """The packet with those properties that it does not have; what differs from one that it has becomes a text of ours.

    Args:
        packet: a new one is made where there is none, or it is damaged.
        properties: name with a prefix of ``_PREFIXES``, kind ("" for one text, or Alt, Bag, Seq), values.
    """
    text = _text_of(packet) if packet is not None else None
    root = None if text is None else _parse(text)
    there = set() if root is None else {each.tag for each in root.iter()} | {
        name for each in root.iter() for name in each.attrib
    }  # fmt: skip
    lines = []
    for name, kind, values in properties:
        prefix, _, local = name.partition(":")
        items, whole = [_escaped(value) for value in values], f"{{{_PREFIXES[prefix]}}}{local}"
        if prefix != "kept" and whole in there:  # what it says beside that is kept too
            lines += [_kept(local, item) for item in items if item not in (text or "")]
        elif kind:
            language = ' xml:lang="x-default"' if kind == "Alt" else ""
            body = "".join(f"<rdf:li{language}>{item}</rdf:li>" for item in items)
            lines.append(f" <{name}><rdf:{kind}>{body}</rdf:{kind}></{name}>\n")
        elif prefix == "kept":
            lines.append(_kept(local, items[0]))
        else:
            lines.append(f" <{name}>{'; '.join(items)}</{name}>\n")
        there.add(whole)
    if not lines:
        return packet
    spaces = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in _PREFIXES.items())
    head = f'<rdf:Description xmlns:rdf="{_RDF}" rdf:about="" {spaces}>\n'
    return _with_description(packet, head + "".join(lines) + "</rdf:Description>\n")


def _kept(keyword: str, text: str) -> str:
    return f" <kept:text kept:keyword={quoteattr(_clean(keyword))}>{text}</kept:text>\n"


def named_profile(packet: bytes | None) -> str | None:
    """The colour profile that a packet names, as Photoshop does."""
    found = re.search(rb"""photoshop:ICCProfile\s*(?:=\s*["']|>)([^"'<>]{1,100})""", packet or b"")
    return None if found is None else found[1].decode(errors="replace")


def extended(packet: bytes, room: int) -> tuple[bytes, list[bytes]]:
    """(the packet that stands in JPEG's segment, the segments with the rest), for one that does not fit into it.

    The long form of XMP (part 3, 1.1.3.1): each further segment has the digest, the length of all and its offset. Many
    readers look at the first packet alone, so the digital source stands there.
    """
    said = source_type_of(packet)
    if said is not None:
        packet = _without_source_type(packet) or packet
    digest = hashlib.md5(packet, usedforsecurity=False).hexdigest().upper()
    names = f'xmlns:rdf="{_RDF}" xmlns:xmpNote="{_NOTE}"'
    note = f'<rdf:Description {names} rdf:about="" xmpNote:HasExtendedXMP="{digest}">'
    note += f"{'' if said is None else _said(said)}</rdf:Description>\n"
    step = room - 40
    parts = [
        digest.encode() + struct.pack(">II", len(packet), start) + packet[start : start + step]
        for start in range(0, len(packet), step)
    ]
    return _with_description(None, note), parts


def whole_of_extended(packet: bytes, segments: Iterable[bytes]) -> bytes:
    """The packet of JPEG's segment together with what stands in the further ones, as far as they are whole."""
    found = re.search(rb"""HasExtendedXMP\s*(?:=\s*["']|>)\s*([0-9A-Fa-f]{32})""", packet)
    parts = sorted((segment[36:40], segment) for segment in segments if found and segment[:32] == found[1])
    data = b"".join(segment[40:] for _, segment in parts)
    if not parts or struct.pack(">I", len(data)) != parts[0][1][32:36]:
        return packet
    text, rest = _text_of(packet), _text_of(data)
    if text is None or rest is None:
        return packet if rest is None else data
    inside = _descriptions(text)
    return _with_description(data, inside) if inside else data


def _descriptions(text: str) -> str:
    """What an RDF element holds, each with the names it needs, without the note of the long form."""
    root = _parse(text)
    rdf = None if root is None else next(root.iter(f"{{{_RDF}}}RDF"), None)
    found = []
    for each in [] if rdf is None else list(rdf):
        each.attrib.pop(f"{{{_NOTE}}}HasExtendedXMP", None)
        for child in [child for child in each if child.tag == f"{{{_NOTE}}}HasExtendedXMP"]:
            each.remove(child)
        if len(each) or any(not name.endswith("}about") for name in each.attrib):
            found.append(ElementTree.tostring(each, encoding="unicode"))
    return "\n".join(found)


def _escaped(text: str) -> str:
    return escape(_clean(text), {"\r": "&#13;"})


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


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
