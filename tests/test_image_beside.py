"""What stands beside the pixels: from every format into every format it is kept, becomes XMP, or is said to be lost."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms

from picture_files import FORMATS, SRGB, SUFFIXES, cmyk_profile, encode, exif, picture, smooth, tiff
from supir.image import Picture, from_pil, read, write
from supir.image.exif import read_exif
from supir.image.iptc import as_properties, iptc_of_resources, resources_of_iptc
from supir.image.profiles import ADOBE_RGB, Colours, by_cicp, profile

IIM = b"".join(
    b"\x1c" + bytes([record, number]) + struct.pack(">H", len(text)) + text
    for record, number, text in (
        (1, 90, b"\x1b%G"), (2, 0, b"\0\4"), (2, 5, b"Harbour"), (2, 25, b"fog"), (2, 25, b"boats"),
        (2, 80, "Zoë".encode()), (2, 116, b"(c) Zoe"), (2, 120, b"The old harbour"), (2, 55, b"19991231"),
        (2, 60, b"235958+0100"), (2, 90, b"Genoa"), (2, 118, b"zoe@example.org"),
    )
)  # fmt: skip
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:format>kept</dc:format>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)
TEXTS = (("Comment", "by hand: é"), ("Title", "漢字"), ("parameters", "steps: 20 <b> & more"))


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def sources() -> dict[str, bytes]:
    """A file of each format with all that it can have beside its pixels, made by other means than our writer."""
    image, block = Image.fromarray(smooth()), exif(6, thumbnail=True)
    common: dict[str, Any] = {"exif": block, "icc_profile": SRGB, "xmp": XMP}
    jpeg = encode(image, "JPEG", dpi=(300, 240), comment="by hand: é", **common)
    jpeg = jpeg[:2] + segment(0xED, b"Photoshop 3.0\0" + resources_of_iptc(IIM)) + jpeg[2:]
    hexadecimal = resources_of_iptc(IIM).hex()
    png = encode(image, "PNG", dpi=(300, 240), **common)
    texts = chunk(b"tEXt", b"Comment\0by hand: \xe9") + chunk(b"iTXt", b"Title\0\0\0de\0Titel\0" + "漢字".encode())
    texts += chunk(b"zTXt", b"parameters\0\0" + zlib.compress(TEXTS[2][1].encode()))
    raw = f"\n8bim\n{len(hexadecimal) // 2}\n{hexadecimal}\n".encode()
    texts += chunk(b"zTXt", b"Raw profile type 8bim\0\0" + zlib.compress(raw))
    tiff_exif = Image.Exif()
    tiff_exif.load(block)
    tiff_exif[0x02BC], tiff_exif[0x83BB] = XMP, IIM
    tiff_exif[0x0128] = 3
    tiff_exif[0x011A], tiff_exif[0x011B] = 300 / 2.54, 240 / 2.54
    webp_exif = Image.Exif()
    webp_exif.load(block)
    webp_exif[0x011A], webp_exif[0x011B], webp_exif[0x0128] = 300.0, 240.0, 2
    return {
        "JPEG": jpeg,
        "PNG": png[:33] + texts + png[33:],
        "WebP": encode(image, "WebP", exif=webp_exif.tobytes(), icc_profile=SRGB, xmp=XMP),
        "TIFF": encode(image, "TIFF", exif=tiff_exif, icc_profile=SRGB),
    }


SOURCES = sources()
HAVE = {"JPEG": ("iptc", "Comment"), "PNG": ("iptc", "Comment", "Title", "parameters"), "WebP": (), "TIFF": ("iptc",)}
NATIVE = {"JPEG": ("iptc", "Comment"), "PNG": ("Comment", "Title", "parameters"), "WebP": (), "TIFF": ("iptc",)}
IN_XMP = {
    "iptc": [b"Harbour", b"<rdf:li>fog</rdf:li><rdf:li>boats</rdf:li>", "Zoë".encode(), b"The old harbour",
             b"1999-12-31T23:59:58+01:00", b"Genoa"],
    "Comment": ["by hand: é".encode()], "Title": ["漢字".encode()], "parameters": [b"steps: 20 &lt;b&gt; &amp; more"],
}  # fmt: skip


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("kind", FORMATS)
def test_all_goes_from_every_format_into_every_format(tmp_path: Path, kind: str, target: str) -> None:
    (tmp_path / "a").write_bytes(SOURCES[kind])
    source, path = read(tmp_path / "a"), tmp_path / f"b{SUFFIXES[target]}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write(source, path)
    again = read(path)
    assert again.icc == SRGB
    assert again.dpi == pytest.approx((300, 240), abs=0.01)
    assert again.exif is not None
    assert read_exif(again.exif).image[0x010F][2] == b"Acme\0"
    assert read_exif(again.exif).gps == read_exif(source.exif).gps != {}
    assert again.xmp is not None
    assert b"<dc:format>kept</dc:format>" in again.xmp
    for name in HAVE[kind]:
        if name in NATIVE[target]:
            assert again.iptc == IIM if name == "iptc" else dict(again.texts)[name] == dict(TEXTS)[name]
        else:
            assert all(words in again.xmp for words in IN_XMP[name])
    said = [str(each.message) for each in caught]
    lost = "iptc" in HAVE[kind] and "iptc" not in NATIVE[target]
    assert said == ([f"{path}: {target} has no place for IPTC 2:118; left out"] if lost else [])


def test_other_software_finds_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(SOURCES["PNG"])
    for kind, suffix in SUFFIXES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(read(tmp_path / "a"), tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as image:
            image.load()
            if kind != "WebP":
                assert tuple(map(float, image.info["dpi"])) == pytest.approx((300, 240), abs=0.5)
            assert image.getexif()[0x0110] == "Box 3"
            if kind == "PNG":
                assert (image.text["Comment"], image.text["Title"]) == ("by hand: é", "漢字")
            if kind == "JPEG":
                assert image.info["comment"].decode() == "by hand: é"
                assert image.info["photoshop"][0x0404] == IIM
        found = pyvips.Image.new_from_file(str(tmp_path / f"b{suffix}"))
        assert b"kept" in found.get("xmp-data")
        assert found.get("icc-profile-data") == SRGB


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_no_print_size_is_made_up(tmp_path: Path, suffix: str) -> None:
    write(picture()[0], tmp_path / f"a{suffix}")
    assert read(tmp_path / f"a{suffix}").dpi is None
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.info.get("dpi") in (None, (1, 1))


@pytest.mark.parametrize(("unit", "number", "expected"), [(2, 300.0, 300.0), (3, 118.11, 300.0), (1, 3.0, None)])
def test_dots_an_inch_and_a_centimetre(tmp_path: Path, unit: int, number: float, expected: float | None) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(smooth(), 2, None, {282: [number], 283: [number], 296: [unit]}))
    found = read(path).dpi
    assert found == (None if expected is None else pytest.approx((expected, expected), abs=0.01))


def test_a_large_block_that_jpeg_has_no_room_for_is_said(tmp_path: Path) -> None:
    block = Image.Exif()
    block[0x010F] = "Acme"
    block.get_ifd(0x8769)[0x927C] = b"\7" * 70_000
    source = replace(picture()[0], exif=read_exif(block.tobytes()).cleaned)
    with pytest.warns(UserWarning, match="JPEG has no place for the MakerNote; left out"):
        write(source, tmp_path / "a.jpg")
    assert read_exif(read(tmp_path / "a.jpg").exif).image[0x010F][2] == b"Acme\0"
    for suffix in (".png", ".webp", ".tif"):
        write(source, tmp_path / f"a{suffix}")
        assert len(read_exif(read(tmp_path / f"a{suffix}").exif).exif[0x927C][2]) == 70_000


def test_two_of_a_kind_are_both_kept(tmp_path: Path) -> None:
    texts = (("Comment", "one"), ("Comment", "two"), ("Title", "three"))
    source = replace(
        picture()[0], texts=texts, xmp=XMP.replace(b"<dc:format>", b"<dc:title>four</dc:title><dc:format>")
    )
    write(source, tmp_path / "a.webp")
    found = read(tmp_path / "a.webp").xmp or b""
    assert [found.count(words) for words in (b"one", b"two", b"three", b"four")] == [1, 1, 1, 1]
    assert found.count(b"<exif:UserComment>") == 1


def test_iptc_wrapped_and_unwrapped() -> None:
    assert iptc_of_resources(resources_of_iptc(IIM)) == IIM
    other = b"8BIM\x03\xed\0\0\0\0\0\5abcde\0" + resources_of_iptc(IIM)
    assert iptc_of_resources(other) == IIM
    assert iptc_of_resources(b"8BIM\x04\x04\0\0\0\0\xff\xff") is None
    latin = b"\x1c\2\x50\0\3Zo\xeb"
    assert as_properties(latin)[0] == [("dc:creator", "Seq", ["Zoë"])]
    for end in range(len(IIM)):
        as_properties(IIM[:end])


ADOBE = {"primaries": (0.64, 0.33, 0.21, 0.71, 0.15, 0.06), "gamma": 563 / 256}


def in_srgb(icc: bytes | None, values: tuple[int, int, int]) -> np.ndarray:
    image = Image.new("RGB", (1, 1), values)
    if icc is None:
        return np.array(image)[0, 0].astype(int)
    used = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    turned = ImageCms.profileToProfile(image, used, ImageCms.createProfile("sRGB"))
    assert turned is not None
    return np.array(turned)[0, 0].astype(int)


def exif_with(color_space: int, index: str = "", **more: Any) -> bytes:
    block = Image.Exif()
    block[0x010F] = "Acme"
    inside = block.get_ifd(0x8769)
    inside[0xA001] = color_space
    if index:
        inside[0xA005] = {1: index}
    if more:
        inside[0xA500] = more["gamma"]
        block[0x013E], block[0x013F] = (0.3127, 0.3290), more["primaries"]
    return block.tobytes()


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    data = encode(Image.fromarray(smooth()), "PNG")
    return data[:33] + b"".join(chunk(*each) for each in chunks) + data[33:]


def chromaticities(*values: float) -> bytes:
    return struct.pack(">8I", *(round(value * 100_000) for value in values))


TABLE = [round(65535 * (step / 255) ** 2.2) for step in range(256)]
SAID = {
    **{f"{kind}: R03": encode(Image.fromarray(smooth()), kind, exif=exif_with(0xFFFF, "R03")) for kind in FORMATS[:3]},
    "TIFF: EXIF, 2": encode(Image.fromarray(smooth()), "TIFF", exif=exif_with(2)),
    "JPEG: EXIF, 2": encode(Image.fromarray(smooth()), "JPEG", exif=exif_with(2)),
    "JPEG: EXIF, gamma and primaries": encode(
        Image.fromarray(smooth()), "JPEG", exif=exif_with(0xFFFF, gamma=2.2, primaries=ADOBE["primaries"])
    ),
    "PNG: gAMA and cHRM": png_with(
        (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", chromaticities(0.3127, 0.329, *ADOBE["primaries"]))
    ),
    "TIFF: primaries and curve": tiff(
        smooth(), 2, None, {318: [0.3127, 0.329], 319: list(ADOBE["primaries"]), 301: TABLE}
    ),
    "JPEG: the name in XMP": encode(
        Image.fromarray(smooth()), "JPEG",
        xmp=XMP.replace(b"<dc:format>kept</dc:format>", b"").replace(
            b'rdf:about=""',
            b'rdf:about="" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
            b' photoshop:ICCProfile="Adobe RGB (1998)"',
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_every_way_to_say_adobe_rgb_becomes_its_profile(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(SAID[name])
    source = read(path)
    green = in_srgb(source.icc, (100, 200, 100))
    assert np.abs(green - [0, 202, 94]).max() <= 4, "a green of Adobe RGB"
    for suffix in SUFFIXES.values():
        write(source, tmp_path / f"b{suffix}")
        again = read(tmp_path / f"b{suffix}")
        assert again.icc == source.icc
        assert read_exif(again.exif).exif.get(0xA001, (3, 1, b"\xff\xff"))[2] == b"\xff\xff", "the profile says it"


@pytest.mark.parametrize(
    ("data", "values", "expected"),
    [
        (png_with((b"gAMA", struct.pack(">I", 100_000))), (55, 55, 55), (128, 128, 128)),
        (png_with((b"cICP", bytes([12, 13, 0, 1]))), (200, 50, 50), (218, 24, 40)),
        (png_with((b"cICP", bytes([1, 13, 0, 1])), (b"gAMA", struct.pack(">I", 100_000))), (55, 55, 55), (55, 55, 55)),
        (png_with((b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))), (55, 55, 55), (55, 55, 55)),
        (png_with((b"gAMA", struct.pack(">I", 45455))), (55, 90, 55), (55, 90, 55)),
        (tiff(smooth(), 2, None, {301: [step * 257 for step in range(256)]}), (55, 55, 55), (128, 128, 128)),
    ],
    ids=["linear", "Display P3", "cICP before gAMA", "sRGB before gAMA", "usual gAMA", "linear TIFF"],
)
def test_other_colour_spaces(tmp_path: Path, data: bytes, values: Any, expected: Any) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    assert np.abs(in_srgb(read(path).icc, values) - expected).max() <= 3


def test_a_profile_counts_more_than_words(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(Image.fromarray(smooth()), "JPEG", exif=exif_with(2), icc_profile=SRGB))
    assert read(path).icc == SRGB
    ink = Image.fromarray(smooth()).convert("CMYK")
    path.write_bytes(encode(ink, "JPEG", exif=exif_with(2), icc_profile=cmyk_profile()))
    assert np.abs(in_srgb(read(path).icc, (100, 200, 100)) - [100, 200, 100]).max() <= 2
    path.write_bytes(encode(Image.fromarray(smooth()), "JPEG", icc_profile=b"\1" * 200))
    with pytest.warns(UserWarning, match="its colour profile is damaged; sRGB is assumed"):
        assert read(path).icc is None


def test_grey_has_the_curve_of_what_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(Image.fromarray(smooth()[..., 0]), "JPEG", exif=exif_with(2)))
    icc = read(path).icc
    assert icc is not None
    assert icc[16:20] == b"GRAY"
    ImageCms.ImageCmsProfile(io.BytesIO(icc))


def test_pil_images_say_it_too() -> None:
    for name, data in SAID.items():
        if "XMP" not in name and "TIFF: primaries" not in name:
            with Image.open(io.BytesIO(data)) as image:
                assert np.abs(in_srgb(from_pil(image).icc, (100, 200, 100)) - [0, 202, 94]).max() <= 4, name


def test_profiles_of_no_space_are_none() -> None:
    assert profile(Colours()) is None
    assert profile(Colours(primaries=(0.3, 0.3) * 3)) is None
    assert profile(Colours(primaries=(0.3, 0.0) * 3)) is None
    assert by_cicp(200, 13) is None
    for code in (1, 5, 6, 9, 11, 12, 22):
        for transfer in (1, 4, 8, 13, 16, 18):
            colours = by_cicp(code, transfer)
            assert colours is not None
            icc = profile(colours)
            assert icc is None or ImageCms.ImageCmsProfile(io.BytesIO(icc))
    assert re.search(rb"A\0d\0o\0b\0e", profile(ADOBE_RGB) or b"")


def test_what_came_beside_survives_the_networks() -> None:
    source = Picture(pixels=smooth_pixels(), iptc=IIM, texts=TEXTS, dpi=(300.0, 300.0), icc=SRGB)
    restored = source.with_pixels(smooth_pixels())
    assert (restored.iptc, restored.texts, restored.dpi) == (IIM, TEXTS, (300.0, 300.0))


def smooth_pixels() -> Any:
    return from_pil(Image.fromarray(smooth())).pixels
