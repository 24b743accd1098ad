from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from picture_files import (
    FORMATS,
    LOSSLESS,
    SRGB,
    SUFFIXES,
    cmyk_profile,
    encode,
    exif,
    grey_profile,
    noise,
    save_vips,
    smooth,
    tiff,
)
from supir.errors import ImageReadError
from supir.image import Picture, from_pil, read, read_size, to_pil


def integers(picture: Picture, top: int = 255) -> np.ndarray:
    """(H, W, C) of a Picture, alpha last."""
    unit = [(picture.pixels.double() + 1) / 2] + ([] if picture.alpha is None else [picture.alpha.double()])
    values = torch.cat(unit).permute(1, 2, 0).numpy() * top
    assert np.abs(values - values.round()).max() < 0.01, "not integers"
    return values.round().astype(int)


MODES = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_lossless_files_is_read_exactly(tmp_path: Path, kind: str, mode: str) -> None:
    channels = Image.new(MODES["RGB" if mode == "P" else mode], (1, 1)).getbands()
    source = Image.fromarray(np.squeeze(noise(21, 34, len(channels)))).convert(mode)
    path = tmp_path / f"a{SUFFIXES[kind]}"
    path.write_bytes(encode(source, kind, **LOSSLESS[kind]))
    expected = np.array(source.convert(MODES[mode]))
    if kind == "WebP":  # has colour only, and its alpha goes when it hides nothing
        expected = np.array(source.convert("RGBA" if "A" in mode else "RGB"))
    picture = read(path)
    assert np.array_equal(integers(picture), expected.reshape(21, 34, -1))
    assert picture.pixels.dtype == torch.float32
    assert picture.grey == (expected.ndim == 2 or expected.shape[2] == 2)
    assert (picture.bits, picture.path) == (8, path)
    assert (picture.width, picture.height) == (34, 21)
    assert picture.rgb.shape == (3, 21, 34)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("channels", "space"), [(1, "grey16"), (2, "grey16"), (3, "rgb16"), (4, "rgb16")])
def test_16_bits_are_read_exactly(tmp_path: Path, suffix: str, channels: int, space: str) -> None:
    values = noise(40, 50, channels, bits=16)
    values[0, 0], values[0, 1], values[0, 2] = 0, 65535, 32768
    picture = read(save_vips(values, tmp_path / f"a{suffix}", space))
    assert picture.bits == 16
    assert np.array_equal(integers(picture, 65535), values)
    assert picture.pixels.min() >= -1
    assert picture.pixels.max() <= 1


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_turns(tmp_path: Path, kind: str, orientation: int) -> None:
    source = Image.fromarray(smooth())
    path = tmp_path / f"a{SUFFIXES[kind]}"
    path.write_bytes(encode(source, kind, exif=exif(orientation), **LOSSLESS.get(kind, {"quality": 98})))
    with Image.open(path) as again:
        expected = np.array(ImageOps.exif_transpose(again).convert("RGB")).astype(int)
    picture = read(path)
    assert np.abs(integers(picture) - expected).max() <= (0 if kind in LOSSLESS else 4)
    assert picture.pixels.is_contiguous()
    assert picture.exif is not None
    block = Image.Exif()
    block.load(picture.exif)
    assert block[0x0112] == 1
    assert block[0x010F] == "Acme"
    assert block.get_ifd(0x8825)[1] == "N"
    assert 0xA002 not in block.get_ifd(0x8769)


@pytest.mark.parametrize("kind", FORMATS)
def test_rgb_keeps_its_profile_and_its_numbers(tmp_path: Path, kind: str) -> None:
    profile = SRGB[:128] + SRGB[128:]
    path = tmp_path / f"a{SUFFIXES[kind]}"
    path.write_bytes(
        encode(Image.fromarray(smooth()), kind, icc_profile=profile, **LOSSLESS.get(kind, {"quality": 98}))
    )
    assert read(path).icc == profile


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_grey_keeps_a_grey_profile_and_drops_one_of_another_kind(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a{SUFFIXES[kind]}"
    source = Image.fromarray(smooth()[..., 0])
    path.write_bytes(encode(source, kind, icc_profile=grey_profile()))
    assert read(path).icc == grey_profile()
    if kind != "PNG":  # libpng refuses to pair them itself
        path.write_bytes(encode(source, kind, icc_profile=SRGB))
        assert read(path).icc is None


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_srgb_through_its_profile(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a{SUFFIXES[kind]}"
    ink = np.zeros((16, 48, 4), np.uint8)
    ink[:, 16:32, 0] = ink[:, 32:, 3] = 255  # paper, cyan, black
    path.write_bytes(encode(Image.frombytes("CMYK", (48, 16), ink.tobytes()), kind, icc_profile=cmyk_profile()))
    picture = read(path)
    paper, cyan, black = (integers(picture)[8, x] for x in (8, 24, 40))
    assert paper.min() > 245
    assert cyan[0] < 60
    assert cyan[2] > 180
    assert black.max() < 70
    assert picture.icc is not None
    assert picture.icc[16:20] == b"RGB "
    path.write_bytes(encode(Image.frombytes("CMYK", (48, 16), ink.tobytes()), kind))
    assert integers(read(path))[8, 8].min() > 245, "without a profile"


def test_palette_with_transparency_has_alpha(tmp_path: Path) -> None:
    source = Image.fromarray(noise(9, 11) % 4).convert("P")
    path = tmp_path / "a.png"
    path.write_bytes(encode(source, "PNG", transparency=2))
    with Image.open(path) as again:
        assert np.array_equal(integers(read(path)), np.array(again.convert("RGBA")))


def test_premultiplied_tiff_is_divided_by_its_alpha(tmp_path: Path) -> None:
    values = np.array([[[100, 50, 0, 128], [200, 200, 200, 255], [0, 0, 0, 0]]], np.uint8)
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path)
    blob = bytearray(path.read_bytes())
    at = blob.index(b"\x52\x01\x03\x00\x01\x00\x00\x00")
    assert np.array_equal(integers(read(path)), values), "straight alpha"
    blob[at + 8] = 1
    path.write_bytes(blob)
    picture = read(path)
    expected = np.array([[[199, 100, 0, 128], [200, 200, 200, 255], [0, 0, 0, 0]]])
    assert np.abs(integers(picture) - expected).max() <= 1


@pytest.mark.parametrize(("kind", "suffix"), [("WebP", ".webp"), ("TIFF", ".tif")])
def test_of_several_pages_the_first_is_read_with_a_warning(tmp_path: Path, kind: str, suffix: str) -> None:
    first, second = Image.fromarray(smooth()), Image.fromarray(255 - smooth())
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encode(first, kind, save_all=True, append_images=[second], **LOSSLESS[kind]))
    with pytest.warns(UserWarning, match=r"a\.\w+: 2 pictures in it; only the first is read"):
        picture = read(path)
    assert np.array_equal(integers(picture), smooth())


@pytest.mark.parametrize("values", [np.float32([[0.5, 1]]), np.int32([[5, 70000]]), np.uint32([[5, 70000]])])
def test_float_and_32_bit_tiffs_are_refused(tmp_path: Path, values: Any) -> None:
    path = save_vips(values, tmp_path / "a.tif", "b-w")
    with pytest.raises(ImageReadError, match=r"a\.tif: samples of type \w+; allowed are 8 and 16 bit"):
        read(path)


def test_more_channels_than_a_picture_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(noise(5, 5, 7), photometric=1, extras=[0] * 6))
    with pytest.raises(ImageReadError, match=r"7 channels.*allowed are grey, RGB and CMYK"):
        read(path)


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    for kind in FORMATS:
        for suffix in (".jpg", ".png", ".webp", ".tif", ".txt", ""):
            path = tmp_path / f"a{suffix}"
            path.write_bytes(encode(Image.fromarray(smooth()), kind))
            assert read(path).width == 36


def test_odd_names_are_names(tmp_path: Path) -> None:
    for name in ("a[page=2].png", "ü %s\n.png", b"not-utf8-\xff.png".decode(errors="surrogateescape"), "-x.png"):
        path = tmp_path / name
        path.write_bytes(encode(Image.fromarray(smooth()), "PNG"))
        assert read(path).width == 36


def test_a_file_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for value in (10, 200):
        path.write_bytes(encode(Image.new("L", (5, 5), value), "PNG"))
        assert integers(read(path))[0, 0, 0] == value


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16"])
def test_pil_in_and_out(mode: str) -> None:
    if mode == "I;16":
        values = noise(7, 9, bits=16)
        picture = from_pil(Image.fromarray(values))
        assert picture.bits == 16
        assert np.array_equal(integers(picture, 65535)[..., 0], values)
        return
    source = Image.fromarray(noise(7, 9, 3)).convert(mode)
    expected = source.convert({"1": "L", "P": "RGB", "PA": "RGBA"}.get(mode, mode))
    assert np.array_equal(np.array(to_pil(from_pil(source))), np.array(expected))


def test_pil_keeps_profile_and_turn_and_refuses_floats(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(Image.fromarray(smooth()), "JPEG", exif=exif(6), icc_profile=SRGB))
    with Image.open(path) as source:
        picture = from_pil(source)
    assert (picture.width, picture.height) == (24, 36)
    assert picture.icc == SRGB
    assert picture.exif is not None
    assert np.abs(integers(picture) - integers(read(path))).max() <= 4
    assert to_pil(picture).info["icc_profile"] == SRGB
    with pytest.raises(ImageReadError, match="mode F"):
        from_pil(Image.new("F", (3, 3)))
    cmyk = Image.new("CMYK", (4, 4), (0, 0, 0, 0))
    cmyk.info["icc_profile"] = cmyk_profile()
    picture = from_pil(cmyk)
    assert picture.pixels.min() > 0.9
    assert picture.icc is not None


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_the_size_is_read_from_the_header(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    Image.new("RGB", (37, 21)).save(path)
    assert read_size(path) == (37, 21)
    path.write_bytes(b"nothing")
    with pytest.raises(ImageReadError, match=path.name):
        read_size(path)
