from __future__ import annotations

import errno
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image

from picture_files import FORMATS, SRGB, SUFFIXES, encode, exif, grey_profile, noise, smooth
from supir.errors import ImageReadError, ImageWriteError, OptionError
from supir.image import Picture, read, read_record, write
from supir.image.exif import clean_exif
from supir.image.xmp import clean_xmp

RECORD = {"model": "tiny <1>", "seed": "7", "prompt": 'a "quoted" & é 漢字 😀\nline\r\n ', "empty": ""}
XMP = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" tiff:Orientation="6">'
    b"<tiff:ImageWidth>4000</tiff:ImageWidth><dc:creator>someone</dc:creator></rdf:Description></rdf:RDF></x:xmpmeta>"
    b'\n<?xpacket end="w"?>'
)


def picture(channels: int = 3, bits: int = 8, alpha: bool = False, seed: int = 0) -> tuple[Picture, np.ndarray]:
    """A Picture and the integers that it must be written as."""
    values = noise(30, 40, channels + alpha, bits=bits, seed=seed)
    unit = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1) / (2**bits - 1)
    return Picture(pixels=unit[:channels] * 2 - 1, alpha=unit[channels:] if alpha else None, bits=bits), values


def stored(path: Path) -> np.ndarray:
    """What another reader finds in the file, (H, W, C)."""
    image = pyvips.Image.new_from_file(str(path), revalidate=True)
    return image.numpy().reshape(image.height, image.width, image.bands)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_files_hold_the_exact_integers(
    tmp_path: Path, suffix: str, bits: int, alpha: bool, channels: int
) -> None:
    source, values = picture(channels, bits, alpha)
    path = tmp_path / f"a{suffix}"
    write(source, path)
    assert stored(path).dtype == values.dtype
    assert np.array_equal(stored(path), values)
    again = read(path)
    assert (again.grey, again.bits) == (channels == 1, bits)
    assert torch.allclose(again.pixels, source.pixels, atol=1e-6)


def test_values_are_rounded_and_clamped_not_cut(tmp_path: Path) -> None:
    levels = torch.tensor([-2.0, -1.0, 99.4 / 127.5 - 1, 99.6 / 127.5 - 1, 1.0, 3.0])
    write(Picture(pixels=levels.expand(3, 1, 6).contiguous()), tmp_path / "a.png")
    assert stored(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 99, 100, 255, 255]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_files_are_close_and_quality_counts(tmp_path: Path, suffix: str) -> None:
    source = read_bytes(tmp_path, encode(Image.fromarray(smooth(200, 300)), "PNG"))
    path = tmp_path / f"b{suffix}"
    write(source, path, quality=95)
    large = path.stat().st_size
    assert np.abs(stored(path)[..., :3].astype(int) - smooth(200, 300)).mean() < 2
    write(source, path, quality=20)
    assert path.stat().st_size < large / 2


def read_bytes(folder: Path, data: bytes) -> Picture:
    path = folder / "source"
    path.write_bytes(data)
    return read(path)


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
    assert read_record(path) == RECORD
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
    assert read_record(path) == {}


def test_a_record_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write(replace(picture()[0], xmp=XMP), path, record={"seed": "1", "old": "x"})
    write(read(path), path, record={"seed": "2"})
    assert read_record(path) == {"seed": "2"}
    xmp = read(path).xmp
    assert xmp is not None
    assert xmp.count(b"<rdf:Description") == 2


@pytest.mark.parametrize(
    "damaged", [b"", b"no xml", b"<x", XMP[:200], b"\xff\xfe\0", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>']
)
def test_a_damaged_packet_is_replaced(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "a.png"
    write(replace(picture()[0], xmp=damaged), path, record=RECORD)
    assert read_record(path) == RECORD


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
    start = time.monotonic()
    assert clean_xmp(packet) is not None
    write(replace(picture()[0], xmp=packet), tmp_path / "a.png", record=RECORD)
    assert read_record(tmp_path / "a.png") == RECORD
    assert time.monotonic() - start < 3


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
        cleaned = clean_exif(bytes(block[: chance.choice((len(block), chance.randrange(len(block))))]))
        if cleaned is not None:
            assert clean_exif(cleaned) == cleaned


def test_record_keys_are_names_and_values_are_made_xml(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(OptionError, match="record key 'a b'"):
        write(picture()[0], path, record={"a b": "1"})
    assert not list(tmp_path.iterdir())
    write(picture()[0], path, record={"a": "x\0y</supir:a>\ud800"})
    assert read_record(path) == {"a": "x\ufffdy</supir:a>\ufffd"}


def test_xmp_too_long_for_jpeg(tmp_path: Path) -> None:
    long = XMP.replace(b"someone", b"someone" * 10_000)
    path = tmp_path / "a.jpg"
    with pytest.warns(UserWarning, match=r"do not fit into a JPEG; the photo's own is left out"):
        write(replace(picture()[0], xmp=long), path, record=RECORD)
    assert read_record(path) == RECORD
    with pytest.warns(UserWarning, match="do not fit"), pytest.raises(ImageWriteError, match="a record of"):
        write(picture()[0], tmp_path / "b.jpg", record={"prompt": "x" * 70_000})
    write(replace(picture()[0], xmp=long), tmp_path / "a.png", record=RECORD)
    assert read_record(tmp_path / "a.png") == RECORD


def test_bits(tmp_path: Path) -> None:
    source, values = picture(bits=16)
    write(source, tmp_path / "a.png", bits=8)
    assert np.array_equal(stored(tmp_path / "a.png"), np.rint(values / 257).astype(np.uint8))
    write(picture()[0], tmp_path / "b.tif", bits=16)
    assert np.array_equal(stored(tmp_path / "b.tif"), picture()[1].astype(np.uint16) * 257)
    for suffix in (".jpg", ".webp"):
        write(source, tmp_path / f"c{suffix}", record={"seed": "1"})
        assert read_record(tmp_path / f"c{suffix}") == {"seed": "1", "bits": "8 (the input has 16)"}
        with pytest.raises(ImageWriteError, match=r"holds 8 bits per channel; choose \.png or \.tiff"):
            write(source, tmp_path / f"d{suffix}", bits=16)
    with pytest.raises(OptionError, match="bits is 12; allowed are 8 and 16"):
        write(source, tmp_path / "e.png", bits=12)
    with pytest.raises(OptionError, match="quality is 0; allowed is 1 to 100"):
        write(source, tmp_path / "e.png", quality=0)


def test_alpha_in_jpeg_is_laid_on_white(tmp_path: Path) -> None:
    black = Picture(pixels=torch.full((3, 16, 16), -1.0), alpha=torch.zeros(1, 16, 16))
    with pytest.warns(UserWarning, match="JPEG has no transparency; laid on white"):
        write(black, tmp_path / "a.jpg")
    assert stored(tmp_path / "a.jpg").min() > 250
    write(replace(black, alpha=torch.ones(1, 16, 16)), tmp_path / "b.jpg")
    assert stored(tmp_path / "b.jpg").max() < 5


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_grey_stays_grey_through_a_network(tmp_path: Path, suffix: str) -> None:
    source = read_bytes(tmp_path, encode(Image.fromarray(smooth()[..., 0]), "PNG", icc_profile=grey_profile()))
    restored = source.with_pixels(torch.nn.functional.interpolate(source.rgb[None], scale_factor=2)[0] * 1.5)
    assert restored.grey
    assert restored.pixels.abs().max() <= 1
    path = tmp_path / f"b{suffix}"
    write(restored, path)
    again = read(path)
    assert (again.grey, again.icc) == ((False, None) if suffix == ".webp" else (True, grey_profile()))
    assert (again.pixels[0] - again.pixels[-1]).abs().max() < 0.05
    assert (again.pixels.mean() - restored.pixels.mean()).abs() < 0.02


def test_alpha_follows_the_new_size() -> None:
    source, _ = picture(alpha=True)
    restored = source.with_pixels(torch.zeros(3, 90, 120))
    assert restored.alpha is not None
    assert restored.alpha.shape == (1, 90, 120)
    assert restored.alpha.min() >= 0
    assert restored.alpha.max() <= 1
    assert (restored.alpha.mean() - source.alpha.mean()).abs() < 0.01  # type: ignore[union-attr]


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    source = picture()[0]
    (tmp_path / "old.png").write_bytes(b"old")
    nan = replace(source, pixels=source.pixels.clone().fill_(float("nan")))
    for name in ("old.png", "a.jpg", "a.tif", "a.webp"):
        with pytest.raises(ImageWriteError, match="NaN or infinity"):
            write(nan, tmp_path / name)
    wide = Picture(pixels=torch.zeros(1, 1, 20_000))
    with pytest.raises(
        ImageWriteError, match=r"20000 x 1 pixels; WebP holds 16383 a side at most: choose \.png or \.tiff"
    ):
        write(wide, tmp_path / "a.webp")
    with pytest.raises(
        ImageWriteError, match=r"suffix '\.gif'; allowed are \.jpg, \.jpeg, \.png, \.webp, \.tif, \.tiff"
    ):
        write(source, tmp_path / "a.gif")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageWriteError, match="is a folder"):
        write(source, tmp_path / "folder.png")
    with pytest.raises(ImageWriteError, match=r"cannot be written: (Not a directory|File exists)"):
        write(source, tmp_path / "old.png" / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource")
    import signal

    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # every write beyond 2000 bytes of a file fails
    try:
        with pytest.raises(ImageWriteError, match=rf"a{suffix}: cannot be written"):
            write(Picture(pixels=torch.rand(3, 100, 100) * 2 - 1), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_folders_are_made_and_modes_are_those_of_new_files(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.png"
    write(picture()[0], path)
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [file.name for file in path.parent.iterdir()] == ["c.png"]


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ImageWriteError, match=os.strerror(errno.EACCES)):
        write(picture()[0], tmp_path / "a.png")


def test_reading_a_record_from_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="cannot be read: No such file"):
        read_record(tmp_path / "a.png")
