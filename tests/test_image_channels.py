"""Channels whose meaning is open, colours that transparency hides, and several pictures in one file."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from picture_files import cut_out, encode, noise, png, smooth, tiff
from supir.errors import ImageReadError
from supir.image import Picture, fitted, from_pil, open_large, read, working_size
from supir.image.transparency import filled
from supir.options import restore_options


def integers(picture: Picture) -> np.ndarray:
    top = 65535 if picture.bits == 16 else 255
    unit = torch.cat([(picture.pixels + 1) / 2, *([] if picture.alpha is None else [picture.alpha])])
    return (unit * top).round().permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("photometric", "channels", "extras", "kept", "said"),
    [
        (2, 4, [0], [0, 1, 2], "a channel whose meaning the file leaves open is left out"),
        (2, 4, None, [0, 1, 2], "a channel whose meaning the file leaves open is left out"),
        (2, 5, [0, 0], [0, 1, 2], "2 channels whose meaning the file leaves open are left out"),
        (2, 5, [2, 0], [0, 1, 2, 3], "a channel whose meaning the file leaves open is left out"),
        (2, 5, [0, 2], [0, 1, 2, 4], "a channel whose meaning the file leaves open is left out"),
        (2, 4, [2], [0, 1, 2, 3], None),
        (1, 2, [0], [0], "a channel whose meaning the file leaves open is left out"),
        (1, 2, [2], [0, 1], None),
        (1, 3, [2, 0], [0, 1], "a channel whose meaning the file leaves open is left out"),
    ],
)
def test_a_channel_that_nobody_names_is_no_transparency(
    tmp_path: Path, bits: int, photometric: int, channels: int, extras: Any, kept: list[int], said: str | None
) -> None:
    values = noise(9, 11, channels, bits=bits)
    path = tmp_path / "scan.tif"
    path.write_bytes(tiff(values, photometric, extras))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        picture = read(path)
    assert np.array_equal(integers(picture), values[..., kept])
    assert [str(each.message) for each in caught] == ([] if said is None else [f"{path}: {said}"])


def test_cmyk_with_a_channel_that_nobody_names(tmp_path: Path) -> None:
    ink = np.zeros((8, 8, 5), np.uint8)
    ink[..., 4] = noise(8, 8)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(ink, 5, [0]))
    with pytest.warns(UserWarning, match="left out"):
        picture = read(path)
    assert picture.alpha is None
    assert integers(picture).min() > 245, "paper"


def test_alpha_that_colours_are_multiplied_by_comes_first_or_is_refused(tmp_path: Path) -> None:
    values = np.full((4, 4, 5), [100, 50, 0, 128, 77], np.uint8)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(values, 2, [1, 0]))
    with pytest.warns(UserWarning, match="left out"):
        assert np.abs(integers(read(path))[0, 0] - [199, 100, 0, 128]).max() <= 1
    path.write_bytes(tiff(values, 2, [0, 1]))
    with pytest.raises(ImageReadError, match="its alpha comes after another channel; save it anew with alpha first"):
        read(path)


def test_hidden_colours_are_filled_with_those_shown_near_them() -> None:
    values = torch.from_numpy(cut_out()).permute(2, 0, 1).float() / 255
    found = filled(values[:3], values[3:])
    assert (found * 255 - 250).abs().max() < 1
    assert torch.equal(filled(values[:3], torch.ones(1, 96, 96)), values[:3]), "nothing is hidden"
    assert torch.equal(filled(values[:3], torch.zeros(1, 96, 96)), values[:3]), "nothing is shown"
    two = values[:3].clone()
    two[:, :, :48] = torch.where(values[3:, :, :48] > 0, 0.2, 0.0)
    found = filled(two, values[3:])
    assert found[:, :, :5].max() < 0.4 < 0.8 < found[:, :, -5:].min(), "each side by what is near it"


@pytest.mark.parametrize("preset", ["fast", "reference"])
def test_what_the_networks_are_given_has_no_dark_rims(preset: str) -> None:
    picture = from_pil(Image.fromarray(cut_out()))
    pixels = fitted(picture, restore_options(preset, scale=2.0, min_size=64), 64).pixels
    assert (pixels.add(1).mul(127.5) - 250).abs().max() < 3


def animated_png(num_frames: int, *, in_animation: bool) -> bytes:
    plain = png(4, 4, zlib.compress(b"\0" + b"\7" * 12 + b"\0" * 39))

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    frame = chunk(b"fcTL", struct.pack(">5I2H2B", 0, 4, 4, 0, 0, 1, 10, 0, 0)) if in_animation else b""
    return plain[:33] + chunk(b"acTL", struct.pack(">II", num_frames, 0)) + frame + plain[33:]


def pages(*pictures: tuple[np.ndarray, int]) -> bytes:
    """A TIFF of several pages, each with its NewSubfileType."""
    first, *others = [(Image.fromarray(values), kind) for values, kind in pictures]
    data = b""
    for image, kind in (first, *others):
        part = tiff(np.asarray(image), 2, None, {254: [kind]})
        if not data:
            data = part
            continue
        # its directory is the next one of those before: offsets move by what they stand behind
        data += b"\0" * (len(data) % 2)
        data = chained(data, part)
    return data


def chained(data: bytes, part: bytes) -> bytes:
    base = len(data) - 8
    (at,) = struct.unpack("<I", part[4:8])
    (count,) = struct.unpack("<H", part[at : at + 2])
    moved = bytearray(part)
    for start in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number, value = struct.unpack("<HHII", part[start : start + 12])
        if tag == 273 or {3: 2, 4: 4, 5: 8}[kind] * number > 4:
            moved[start + 8 : start + 12] = struct.pack("<I", value + base)
    out, where = bytearray(data), 4
    while (following := struct.unpack("<I", out[where : where + 4])[0]) != 0:
        where = following + 2 + 12 * struct.unpack("<H", out[following : following + 2])[0]
    out[where : where + 4] = struct.pack("<I", at + base)
    return bytes(out + moved[8:])


SMALL, FULL, OTHER = smooth(12, 18), smooth(48, 72), 255 - smooth(48, 72)


@pytest.mark.parametrize(
    ("data", "expected", "said"),
    [
        (pages((SMALL, 1), (FULL, 0)), FULL, None),
        (pages((SMALL, 0), (FULL, 0)), FULL, None),
        (pages((FULL, 0), (smooth(24, 36), 1), (SMALL, 1)), FULL, None),
        (pages((FULL, 0), (smooth(24, 36), 0), (SMALL, 0)), FULL, None),
        (pages((FULL, 2), (OTHER, 2)), FULL, "2 pictures in it; only the first is read"),
        (pages((SMALL, 1), (FULL, 0), (OTHER, 0)), FULL, "2 pictures in it; only number 2 is read"),
        (pages((FULL, 0), (OTHER, 4)), FULL, None),
        (pages((smooth(30, 20), 0), (FULL, 0)), smooth(30, 20), "2 pictures in it; only the first is read"),
    ],
    ids=[
        "thumbnail",
        "unnamed thumbnail",
        "pyramid",
        "unnamed pyramid",
        "pages",
        "thumbnail and pages",
        "mask",
        "sizes",
    ],
)
def test_the_full_page_of_a_tiff_is_read_and_the_rest_is_said(
    tmp_path: Path, data: bytes, expected: np.ndarray, said: str | None
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        picture = read(path)
    assert np.array_equal(integers(picture), expected)
    assert [str(each.message) for each in caught] == ([] if said is None else [f"{path}: {said}"])


def multi_picture(*kinds: int) -> bytes:
    """A JPEG that says it holds pictures of these MPF kinds (CIPA DC-007)."""
    one = encode(Image.fromarray(smooth()), "JPEG", quality=95)
    entries = b"".join(struct.pack("<IIIHH", kind, len(one), 0, 0, 0) for kind in kinds)
    index = struct.pack("<H", 3) + struct.pack("<HHI4s", 0xB000, 7, 4, b"0100")
    index += struct.pack("<HHII", 0xB001, 4, 1, len(kinds)) + struct.pack("<HHII", 0xB002, 7, len(entries), 50)
    block = b"MPF\0II*\0" + struct.pack("<I", 8) + index + b"\0\0\0\0" + entries
    return one[:2] + b"\xff\xe2" + struct.pack(">H", len(block) + 2) + block + one[2:] + one * (len(kinds) - 1)


@pytest.mark.parametrize(
    ("data", "num_pictures"),
    [
        (multi_picture(0x20030000, 0x20002), 2),
        (multi_picture(0x20030000, 0x10001, 0x10002), 1),
        (multi_picture(0x20030000, 0), 2),
        (animated_png(3, in_animation=True), 3),
        (animated_png(3, in_animation=False), 4),
        (encode(Image.fromarray(FULL), "WebP", save_all=True, append_images=[Image.fromarray(OTHER)]), 2),
    ],
    ids=["stereo", "previews", "gain map", "APNG", "APNG beside its picture", "WebP"],
)
def test_pictures_are_counted_by_the_container(tmp_path: Path, data: bytes, num_pictures: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(path)
    said = [f"{path}: {num_pictures} pictures in it; only the first is read"] if num_pictures > 1 else []
    assert [str(each.message) for each in caught] == said


def test_pil_images_of_several_frames_say_so(tmp_path: Path) -> None:
    data = encode(Image.fromarray(FULL), "TIFF", save_all=True, append_images=[Image.fromarray(OTHER)])
    (tmp_path / "a.tif").write_bytes(data)
    with (
        Image.open(tmp_path / "a.tif") as image,
        pytest.warns(UserWarning, match="2 pictures in one; only the current"),
    ):
        from_pil(image)


def test_a_large_picture_is_filled_as_one_in_memory(tmp_path: Path) -> None:
    """Its windows are what the networks are given of a file whose pixels stay on disk."""
    values = cut_out(600)
    values[300:, :, :3] = values[300:, :, :3] // 2
    Image.fromarray(values).save(tmp_path / "a.png")
    whole = fitted(read(tmp_path / "a.png"), restore_options("fast", scale=1.0, min_size=64), 64).pixels
    with open_large(tmp_path / "a.png", tmp_path) as large:
        windows = large.at_working_size(working_size(600, 600, 1.0, 64, 64), "cpu")
        for top in range(0, 640, 160):
            found = windows[..., top : top + 160, 0:640][0]
            assert (found - whole[:, top : top + 160]).abs().max() < 1e-5
    levels = whole.add(1).mul(127.5)
    assert levels.min() > 120, "no black in it"
