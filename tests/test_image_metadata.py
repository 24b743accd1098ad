from __future__ import annotations

import random
import struct
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picture_files import (
    FORMATS,
    SRGB,
    SUFFIXES,
    encode,
    exif,
    picture,
    read_bytes,
    smooth,
    stored,
)
from supir.errors import ImageReadError, OptionError
from supir.image import read, read_record, write
from supir.image.exif import read_exif
from supir.image.marking import PIXELS, RESTORED
from supir.image.xmp import clean_xmp

RECORD = {"model": "tiny <1>", "seed": "7", "prompt": 'a "quoted" & é 漢字 😀\nline\r\n ', "empty": ""}
XMP = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" tiff:Orientation="6">'
    b"<tiff:ImageWidth>4000</tiff:ImageWidth><dc:creator>someone</dc:creator></rdf:Description></rdf:RDF></x:xmpmeta>"
    b'\n<?xpacket end="w"?>'
)


def recorded(path: Path) -> dict[str, str]:
    """The record without what the writer adds to each."""
    return {name: value for name, value in read_record(path).items() if name != PIXELS}


@pytest.mark.parametrize("suffix", SUFFIXES.values())
@pytest.mark.parametrize("kind", FORMATS)
def test_metadata_goes_from_every_format_into_every_format(tmp_path: Path, kind: str, suffix: str) -> None:
    source = read_bytes(
        tmp_path, encode(Image.fromarray(smooth()), kind, exif=exif(6, thumbnail=True), icc_profile=SRGB, xmp=XMP)
    )
    assert source.xmp is not None
    assert b"tiff:Orientation" not in source.xmp
    path = tmp_path / f"b{suffix}"
    write(source, path, record=RECORD)
    assert recorded(path) == RECORD
    again = read(path)
    assert again.icc == SRGB
    assert again.xmp is not None
    assert b"<dc:creator>someone</dc:creator>" in again.xmp
    assert b"tiff:Orientation" not in again.xmp
    assert b"ImageWidth" not in again.xmp
    assert (again.width, again.height) == (24, 36), "turned once"
    with Image.open(path) as image:
        image.load()
        block = image.getexif()
        assert (block[0x010F], block[0x0110], block[0x0132], block[0x8298]) == (
            "Acme",
            "Box 3",
            "1999:12:31 23:59:58",
            "someone",
        )
        assert block.get(0x0112, 1) == 1
        assert block.get_ifd(0x8769)[0x9003] == "1999:12:31 23:59:58"
        assert block.get_ifd(0x8769)[0x829A] == 0.004
        assert block.get_ifd(0x8769).get(0xA002, 24) == 24
        place = block.get_ifd(0x8825)
        assert (place[1], place[2], place[3], place[4]) == ("N", (48.0, 51.0, 30.5), "E", (2.0, 17.0, 40.0))
        assert not block.get_ifd(1)
        assert image.info["icc_profile"] == SRGB
    if suffix in (".png", ".tif"):
        assert np.abs(stored(path).astype(int) - ((source.pixels + 1) * 127.5).permute(1, 2, 0).numpy()).max() < 0.01


def test_big_endian_exif_of_tiff_is_turned_into_little_endian(tmp_path: Path) -> None:
    block = Image.Exif()
    block.endian = ">"
    block.update({0x010F: "Acme", 0x0110: "Box 3"})
    block.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.5)})
    data = block.tobytes()
    assert b"MM" in data[:8]
    source = read_bytes(tmp_path, encode(Image.fromarray(smooth()), "JPEG", exif=data))
    write(source, tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as image:
        assert image.getexif()[0x010F] == "Acme"
        assert image.getexif().get_ifd(0x8825)[2] == (48.0, 51.0, 30.5)


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_a_plain_picture_gets_no_metadata(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(picture()[0], path)
    again = read(path)
    assert (again.icc, again.xmp, again.exif) == (None, None, None)
    assert recorded(path) == {}


def test_a_record_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write(replace(picture()[0], xmp=XMP), path, record={"seed": "1", "old": "x"})
    write(read(path), path, record={"seed": "2"})
    assert recorded(path) == {"input_source_type": RESTORED, "seed": "2"}
    xmp = read(path).xmp
    assert xmp is not None
    assert xmp.count(b"<rdf:Description") == 2


@pytest.mark.parametrize(
    "damaged", [b"", b"no xml", b"<x", XMP[:200], b"\xff\xfe\0", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>']
)
def test_a_damaged_packet_is_replaced(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "a.png"
    write(replace(picture()[0], xmp=damaged), path, record=RECORD)
    assert recorded(path) == RECORD


@pytest.mark.parametrize(
    "bait",
    [
        "<xmp:Thumbnails>",
        " tiff:Orientation='",
        "<tiff:ImageWidth>",
        '<rdf:Description xmlns:supir="urn:supir:record:1">',
        "<rdf:Description ",
        "</rdf:RDF",
        "</rdf:RDF>",
    ],
)
def test_a_hostile_packet_takes_no_time(tmp_path: Path, bait: str) -> None:
    packet = XMP.replace(b"someone", b"<![CDATA[" + bait.encode() * 30_000 + b"]]>")
    start = time.process_time()
    assert clean_xmp(packet) is not None
    write(replace(picture()[0], xmp=packet), tmp_path / "a.png", record=RECORD)
    assert recorded(tmp_path / "a.png") == RECORD
    assert time.process_time() - start < 3


def test_stale_thumbnails_go_and_the_rest_stays_as_it_is() -> None:
    thumbnails = b"<xmp:Thumbnails><rdf:Alt><rdf:li>AAAA</rdf:li></rdf:Alt></xmp:Thumbnails>"
    packet = XMP.replace(b"<tiff:ImageWidth>", thumbnails + b"<tiff:ImageWidth>")
    packet = packet.replace(b"xmlns:dc=", b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc=')
    expected = packet.replace(thumbnails, b"").replace(b' tiff:Orientation="6"', b"")
    assert clean_xmp(packet) == expected.replace(b"<tiff:ImageWidth>4000</tiff:ImageWidth>", b"")


def test_damaged_exif_is_dropped_not_raised() -> None:
    chance = random.Random(5)
    whole = exif(6, thumbnail=True)
    for _ in range(3000):
        block = bytearray(whole)
        for _ in range(chance.choice((1, 3, 9))):
            block[chance.randrange(len(block))] = chance.randrange(256)
        cleaned = read_exif(bytes(block[: chance.choice((len(block), chance.randrange(len(block))))])).cleaned
        if cleaned is not None:
            assert read_exif(cleaned).cleaned == cleaned


def test_record_keys_are_names_and_values_are_made_xml(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(OptionError, match="record key 'a b'"):
        write(picture()[0], path, record={"a b": "1"})
    assert not list(tmp_path.iterdir())
    write(picture()[0], path, record={"a": "x\0y</supir:a>\ud800"})
    assert recorded(path) == {"a": "x\ufffdy</supir:a>\ufffd"}


def test_xmp_too_long_for_jpeg(tmp_path: Path) -> None:
    long = XMP.replace(b"someone", b"someone" * 10_000)
    path = tmp_path / "a.jpg"
    write(replace(picture()[0], xmp=long), path, record=RECORD)
    assert recorded(path) == RECORD
    again = read(path).xmp
    assert again is not None
    assert b"someone" * 10_000 in again
    with Image.open(path) as image:
        assert b"HasExtendedXMP" in image.info["xmp"], "the long form, which other software reads"
        assert len(image.info["xmp"]) < 65_000
    prompt = {"prompt": "x" * 200_000}
    write(replace(picture()[0], xmp=XMP), tmp_path / "b.jpg", record=prompt)
    assert recorded(tmp_path / "b.jpg") == prompt
    assert b"<dc:creator>someone</dc:creator>" in (read(tmp_path / "b.jpg").xmp or b"")
    write(replace(picture()[0], xmp=long), tmp_path / "a.png", record=RECORD)
    assert recorded(tmp_path / "a.png") == RECORD


def test_reading_a_record_from_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="cannot be read: No such file"):
        read_record(tmp_path / "a.png")


def test_a_packet_with_a_document_type_is_not_kept(tmp_path: Path) -> None:
    packet = XMP.replace(b"<x:xmpmeta", b'<!DOCTYPE x [<!ENTITY b "c">]><x:xmpmeta', 1)
    assert clean_xmp(packet) is None
    write(replace(picture()[0], xmp=packet), tmp_path / "a.png", record=RECORD)
    assert b"DOCTYPE" not in (read(tmp_path / "a.png").xmp or b"")


def test_a_tiff_says_each_thing_once(tmp_path: Path) -> None:
    write(replace(picture()[0], exif=read_exif(exif(6)).cleaned, icc=SRGB), tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    (offset,) = struct.unpack("<I", data[4:8])
    (num_records,) = struct.unpack("<H", data[offset : offset + 2])
    tags = [struct.unpack("<H", data[at : at + 2])[0] for at in range(offset + 2, offset + 2 + 12 * num_records, 12)]
    assert tags == sorted(set(tags))
    assert 0x8769 in tags
