"""No file, whatever it holds, does anything else than become a Picture or an ImageError that names it."""

from __future__ import annotations

import os
import pickle
import random
import re
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import pyvips
from PIL import Image

from picture_files import (
    FORMATS,
    LOSSLESS,
    SRGB,
    SUFFIXES,
    cmyk_profile,
    encode,
    exif,
    noise,
    png,
    save_vips,
    smooth,
)
from supir.errors import ImageError, ImageReadError, ImageTooLargeError, OptionError
from supir.image import Picture, read, read_record
from supir.image.opening import quiet_libvips


class Trap:
    """Makes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


STRANGERS = {
    "an empty file": b"",
    "a text file": b"This is not a picture.\n",
    "an SVG or other XML file": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "a web page": b"\n<!DOCTYPE html><html></html>",
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "a GIF": encode(Image.new("P", (3, 3)), "GIF"),
    "a BMP": encode(Image.new("RGB", (3, 3)), "BMP"),
    "a ZIP archive": b"PK\x03\x04" + b"\0" * 60,
    "a video file, or a picture of an unknown kind": b"\0\0\0\x18ftypisom\0\0\0\0isomavc1",
    "a file of an unknown kind": bytes(range(100)),
}


@pytest.mark.parametrize("what", STRANGERS)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_strangers_are_named_and_refused(tmp_path: Path, what: str, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(STRANGERS[what])
    with pytest.raises(ImageReadError) as caught:
        read(path)
    kinds = "JPEG, PNG, WebP, TIFF, HEIC, AVIF and the raw files of cameras"
    allowed = f"allowed are {kinds} (the content decides, not the name)"
    assert str(caught.value) == f"{path}: {what}, not a picture supir reads; {allowed}"
    assert caught.value.path == path
    with pytest.raises(ImageReadError, match="not a picture"):
        read_record(path)


def test_a_pickle_is_not_unpickled(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / "model.png"
        path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol))
        with pytest.raises(ImageReadError, match="not a picture"):
            read(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_truncated_files_are_refused(tmp_path: Path, kind: str, part: float) -> None:
    data = encode(Image.fromarray(noise(90, 120, 3)), kind)
    path = tmp_path / f"a{SUFFIXES[kind]}"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ImageReadError, match=rf"a\{SUFFIXES[kind]}: damaged or truncated: \w"):
        read(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode(Image.fromarray(smooth()).convert("LAB"), "TIFF"), "LAB colours"),
        (encode(Image.fromarray(smooth()).convert("YCbCr"), "TIFF"), "YCbCr colours without JPEG compression"),
        (encode(Image.fromarray(smooth()), "TIFF", compression="zstd"), "packed by ZSTD, which is not read"),
        (encode(Image.fromarray(smooth()), "TIFF", tiffinfo={254: 1}), "a raw file that cannot be developed"),
        (
            encode(Image.fromarray(smooth()), "TIFF", tiffinfo={50706: b"\1\4\0\0"}),
            "a raw file that cannot be developed",
        ),
    ],
    ids=["lab", "ycbcr", "zstd", "thumbnail", "dng"],
)
def test_tiffs_that_would_be_read_wrongly_are_refused_by_their_kind(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    with pytest.raises(ImageReadError, match=reason):
        read(path)


def huge_tiff(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 64)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 72) + b"\0" * 64 + struct.pack("<H", len(tags)) + body + b"\0" * 4


def huge_webp() -> bytes:
    data = bytearray(encode(Image.new("RGB", (16, 16)), "WebP", lossless=True))
    assert data[12:16] == b"VP8L"
    (word,) = struct.unpack("<I", data[21:25])  # width - 1 and height - 1, 14 bits each, then flags
    data[21:25] = struct.pack("<I", word >> 28 << 28 | 16382 << 14 | 16382)
    return bytes(data)


def huge_jpeg() -> bytes:
    data = bytearray(encode(Image.new("RGB", (16, 16)), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


def zip_bomb() -> bytes:
    """A whole, valid PNG of 30000 x 30000 pixels in a hundred kilobytes."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * 3751) for _ in range(30_000)) + packer.flush()
    return png(30_000, 30_000, rows, depth=1, color=0)


@pytest.mark.parametrize(
    ("name", "data", "megapixels"),
    [
        ("bomb.png", zip_bomb(), 900),
        ("claim.png", png(2**31 - 1, 2**31 - 1, zlib.compress(b"")), None),
        ("claim.tif", huge_tiff(60_000, 60_000), 3600),
        ("claim.jpg", huge_jpeg(), 4290),
        ("claim.webp", huge_webp(), 268),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_huge_pictures_are_refused_before_they_are_decoded(
    tmp_path: Path, name: str, data: bytes, megapixels: int | None
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert len(data) < 300_000
    start = time.process_time()
    if megapixels is None:
        with pytest.raises(ImageError, match=re.escape(name)):
            read(path)
    else:
        with pytest.raises(
            ImageTooLargeError,
            match=rf"{name}: \d+ x \d+ pixels is {megapixels} megapixels; allowed are 256 \(max_pixels\)",
        ):
            read(path)
    assert time.process_time() - start < 1


def test_max_pixels_is_the_last_size_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.new("L", (10, 20)), "PNG"))
    assert read(path, max_pixels=200).width == 10
    with pytest.raises(ImageTooLargeError, match=r"allowed are 0\.000199"):
        read(path, max_pixels=199)
    with pytest.raises(OptionError, match="max_pixels is 0"):
        read(path, max_pixels=0)


def test_what_is_no_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    (tmp_path / "folder.png").mkdir()
    dangling = tmp_path / "dangling.png"
    dangling.symlink_to(tmp_path / "nowhere")
    for path, reason in (
        (loop, "cannot be read: Too many levels of symbolic links"),
        (pipe, "not a regular file; a picture file is needed"),
        (tmp_path / "folder.png", "a folder; a picture file is needed"),
        (dangling, "cannot be read: No such file or directory"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
        (Path("a\0b.png"), "cannot be read: embedded null"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        with pytest.raises(ImageReadError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: {reason}")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
def test_permission_denied(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.new("L", (10, 20)), "PNG"))
    path.chmod(0)
    with pytest.raises(ImageReadError, match="cannot be read: Permission denied"):
        read(path)


def seeds() -> list[bytes]:
    """Small files of many kinds, for mutation."""
    image = Image.fromarray(smooth())
    found = [encode(image, kind, exif=exif(6, thumbnail=True), icc_profile=SRGB) for kind in FORMATS]
    found += [encode(image.convert("RGBA"), kind) for kind in LOSSLESS]
    found += [encode(image.convert("L"), "JPEG", progressive=True), encode(image.convert("P"), "PNG")]
    found += [encode(image.convert("CMYK"), "JPEG", icc_profile=cmyk_profile()[:3000])]
    found += [
        encode(image, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    ]
    found += [encode(image.convert("1"), "TIFF", compression="group4")]
    found += [encode(image, "WebP", save_all=True, append_images=[image.rotate(180)])]
    found += [encode(Image.fromarray(noise(20, 20, bits=16)), kind) for kind in ("PNG", "TIFF")]
    return found


def mutations(count: int, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    sources = seeds()
    words = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\x01\0\0\0")
    for number in range(count):
        data = bytearray(sources[number % len(sources)])
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            at = chance.randrange(len(data) if chance.random() < 0.5 else min(len(data), 200))
            match chance.randrange(5):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    data[at] ^= 1 << chance.randrange(8)
                case 2:
                    del data[at : at + chance.randrange(1, min(40, len(data)))]
                case 3:
                    data[at:at] = chance.randbytes(chance.randrange(1, 20))
                case 4:
                    data[at : at + 4] = chance.choice(words)
        yield bytes(data)


@pytest.mark.parametrize(("count", "seed"), [(600, 11), pytest.param(12_000, 12, marks=pytest.mark.slow)])
def test_mutated_files_become_pictures_or_errors_in_time_and_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], count: int, seed: int
) -> None:
    path = tmp_path / "fuzz"
    num_read = num_refused = settled = 0
    for number, data in enumerate(mutations(count, seed)):
        if number == 200:
            settled = psutil.Process().memory_info().rss
        path.write_bytes(data)
        start = time.process_time()
        message = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture = read(path)
        except ImageError as error:
            message = str(error)
        assert time.process_time() - start < 5
        if message:
            assert message.startswith(f"{path}: ")
            assert "\n" not in message
            num_refused += 1
        else:
            assert isinstance(picture, Picture)
            assert picture.pixels.min() >= -1
            assert picture.pixels.max() <= 1
            num_read += 1
    assert psutil.Process().memory_info().rss - settled < 100e6
    assert num_read > count / 10
    assert num_refused > count / 3
    assert capfd.readouterr() == ("", "")


def test_libvips_says_nothing_on_stderr(tmp_path: Path) -> None:
    """In a process of its own, as a person would see it, with no logging set up."""
    data = bytearray(encode(Image.fromarray(smooth()), "TIFF"))
    at = (
        data.index(struct.pack("<HH", 256, 4))
        if struct.pack("<HH", 256, 4) in data
        else data.index(struct.pack("<HH", 256, 3))
    )
    data[at : at + 2] = b"\xce\xff"  # an unknown tag, which libtiff warns of
    (tmp_path / "a.tif").write_bytes(data)
    image = encode(Image.fromarray(noise(64, 64, 3)), "JPEG")
    (tmp_path / "b.jpg").write_bytes(image[: len(image) // 2])
    code = (
        "import sys\nfrom supir.errors import ImageError\nfrom supir.image import read\n"
        "for path in sys.argv[1:]:\n    try:\n        read(path)\n    except ImageError as error:\n        pass\n"
    )
    source = Path(__file__).parents[1] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.tif"), str(tmp_path / "b.jpg")],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(source)},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    path = save_vips(noise(500, 700, 3), tmp_path / "a.png", "srgb")
    damaged = tmp_path / "b.png"
    damaged.write_bytes(path.read_bytes()[:500_000])

    def read_both(count: int) -> int:
        for _ in range(count):
            read(path)
            with pytest.raises(ImageReadError):
                read(damaged)
        return int(psutil.Process().memory_info().rss)

    read_both(5)
    before, files = read_both(5), psutil.Process().num_fds()
    assert read_both(30) - before < 20e6  # one picture takes 4 MB as float32
    assert psutil.Process().num_fds() <= files


def test_libvips_keeps_nothing_and_may_say_any_bytes() -> None:
    quiet_libvips()
    assert pyvips.cache_get_max() == 0
    for module in (pyvips, pyvips.error):
        assert module._to_string(pyvips.ffi.new("char[]", b"tag \xcf\xff")) == "tag \ufffd\ufffd"


def test_what_libvips_warns_of_enters_no_python(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In a thread of libvips, a collection of garbage would end the process."""
    path = tmp_path / "garbled.tif"
    data = bytearray(encode(Image.fromarray(noise(64, 64)), "TIFF", compression="tiff_adobe_deflate"))
    data[200:260] = bytes(60)
    path.write_bytes(data)
    with caplog.at_level("DEBUG", logger="pyvips"), pytest.raises(ImageReadError):
        read(path)
    assert caplog.records  # what pyvips itself says of its calls
    assert not [record for record in caplog.records if record.message.startswith("VIPS: ")]
