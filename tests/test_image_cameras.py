"""Files of phones and cameras: HEIC, AVIF and raw, upright, in all their bits, with what came beside; and refused."""

from __future__ import annotations

import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
import pyvips
import torch
from PIL import Image

from picture_files import SRGB
from supir.errors import ImageReadError, ImageTooLargeError, ImageWriteError
from supir.image import check_file, check_target, developing, find_pictures, from_pil, read, read_size, verify, write
from supir.jobs.plan import plan_jobs
from supir.options import RestoreOptions
from tiny import tiny_pipeline

WIDTH, HEIGHT = 96, 64
RAMP = np.linspace(0, 65535, WIDTH).astype(np.uint16)[None, :, None].repeat(HEIGHT, 0).repeat(3, 2)
NEUTRAL = (0.5, 1.0, 0.75)
"""What the sensor of the raw file sees of grey."""


def turned_exif() -> bytes:
    exif = Image.Exif()
    exif[274], exif[271] = 6, "Maker"
    return exif.tobytes()


def heic(path: Path) -> Path:
    """10 bits, on its side by EXIF as phones say it, with a profile."""
    file = pillow_heif.from_bytes("RGB;16", (WIDTH, HEIGHT), RAMP.tobytes())
    file[0].info |= {"exif": turned_exif(), "icc_profile": SRGB}
    file.save(path, quality=-1, chroma=444, matrix_coefficients=0)
    return path


def avif(path: Path) -> Path:
    image = pyvips.Image.new_from_array(RAMP).copy(interpretation="rgb16")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", SRGB)
    image.heifsave(str(path), compression="av1", bitdepth=10, lossless=True)
    return path


def dng(path: Path, values: npt.NDArray[np.uint16], orientation: int = 1) -> Path:
    """The least that the DNG specification asks for: one strip of 16 bits, red and blue in a square's corners."""
    height, width = values.shape
    # From XYZ to linear sRGB, which is this camera's space.
    matrix = [3.2404542, -1.5371385, -0.4985314, -0.9692660, 1.8760108, 0.0415560, 0.0556434, -0.2040259, 1.0572252]
    rational = [part for number in matrix for part in (round(number * 10000), 10000)]
    neutral = [part for number in NEUTRAL for part in (round(number * 1000), 1000)]
    tags: list[tuple[int, int, str, list[Any]]] = [
        (254, 4, "I", [0]), (256, 4, "I", [width]), (257, 4, "I", [height]), (258, 3, "H", [16]), (259, 3, "H", [1]),
        (262, 3, "H", [32803]), (271, 2, "s", [b"Maker\0"]), (272, 2, "s", [b"Model\0"]), (273, 4, "I", [0]),
        (274, 3, "H", [orientation]), (277, 3, "H", [1]), (278, 4, "I", [height]), (279, 4, "I", [2 * height * width]),
        (33421, 3, "H", [2, 2]), (33422, 1, "B", [0, 1, 1, 2]), (50706, 1, "B", [1, 4, 0, 0]),
        (50708, 2, "s", [b"Maker Model\0"]), (50717, 4, "I", [65535]), (50721, 10, "i", rational),
        (50728, 5, "I", neutral), (50778, 3, "H", [21]),
    ]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    entries, beside = b"", b""
    bodies = [
        numbers[0] if form == "s" else struct.pack(f"<{len(numbers)}{form}", *numbers) for *_, form, numbers in tags
    ]
    strip = start + sum(len(body) + len(body) % 2 for body in bodies if len(body) > 4)
    for (tag, kind, form, numbers), body in zip(tags, bodies, strict=True):
        body = struct.pack("<I", strip) if tag == 273 else body
        count = len(body) if form == "s" else len(numbers) // (2 if kind in (5, 10) else 1)
        place = body.ljust(4, b"\0")
        if len(body) > 4:
            place = struct.pack("<I", start + len(beside))
            beside += body + b"\0" * (len(body) % 2)
        entries += struct.pack("<HHI", tag, kind, count) + place
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + beside + values.astype("<u2").tobytes())
    return path


def sensor(width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[np.uint16]:
    """A grey ramp of light, as a sensor whose colours are not balanced sees it."""
    light = np.linspace(0.02, 0.9, width)[None].repeat(height, 0) * 65535
    seen = light * NEUTRAL[1]
    seen[::2, ::2] = light[::2, ::2] * NEUTRAL[0]
    seen[1::2, 1::2] = light[1::2, 1::2] * NEUTRAL[2]
    return seen.astype(np.uint16)


def test_a_heic_of_ten_bits(tmp_path: Path) -> None:
    """Upright as libheif makes it, and not turned once more by EXIF."""
    picture = read(heic(tmp_path / "phone.heic"))
    assert (picture.width, picture.height, picture.bits) in ((WIDTH, HEIGHT, 16), (HEIGHT, WIDTH, 16))
    assert picture.icc == SRGB
    assert b"Maker" in (picture.exif or b"")
    values = ((picture.pixels + 1) / 2 * 65535).round()
    across = values[0, 0] if picture.width == WIDTH else values[0, :, 0]
    assert abs(across.numpy() - RAMP[0, :, 0]).max() < 140  # two steps of 10 bits
    assert (across.min(), across.max()) == (0, 65535)


def test_an_avif(tmp_path: Path) -> None:
    picture = read(avif(tmp_path / "a.avif"))
    assert (picture.width, picture.height, picture.bits) == (WIDTH, HEIGHT, 16)
    assert picture.icc == SRGB
    values = ((picture.pixels[0, 0] + 1) / 2 * 65535).round().numpy()
    assert abs(values - RAMP[0, :, 0]).max() < 400


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_raw_file_with_the_cameras_own_balance(orientation: int, tmp_path: Path) -> None:
    path = dng(tmp_path / "camera.dng", sensor(), orientation)
    size = (WIDTH, HEIGHT) if orientation == 1 else (HEIGHT, WIDTH)
    assert read_size(path) == size
    picture = read(path)
    assert (picture.width, picture.height, picture.bits) == (*size, 16)
    assert b"Maker" in (picture.exif or b"")
    pixels = picture.pixels if orientation == 1 else picture.pixels.rot90(1, (1, 2))
    middle = pixels[:, 8:-8, 8:-8].mean(1)
    assert float((middle.amax(0) - middle.amin(0)).max()) < 0.02  # grey comes out grey
    assert bool((middle[1].diff() > 0).all())
    assert len(np.unique(pixels[1].numpy())) > 90  # not the 256 levels of 8 bits stretched


def test_they_are_found_restored_and_written_in_16_bits(tmp_path: Path) -> None:
    names = [heic(tmp_path / "a.heic"), dng(tmp_path / "b.dng", sensor())]
    assert find_pictures(tmp_path) == names
    for source in names:
        target = tmp_path / "out" / f"{source.stem}.png"
        target.parent.mkdir(exist_ok=True)
        tiny_pipeline().restore_file(source, target, scale=1.0, min_size=64, num_steps=1)
        assert read(target).bits == 16
        assert {read(target).width, read(target).height} == {WIDTH, HEIGHT}


def test_the_size_is_checked_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(developing, "_picture", None)
    for source in (heic(tmp_path / "a.heic"), dng(tmp_path / "b.dng", sensor())):
        with pytest.raises(ImageTooLargeError, match=r"allowed are 0\.001"):
            check_file(source, max_pixels=1000)


def test_damaged_ones_and_a_missing_extra_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in (heic(tmp_path / "a.heic"), avif(tmp_path / "b.avif"), dng(tmp_path / "c.dng", sensor())):
        source.write_bytes(source.read_bytes()[: len(source.read_bytes()) * 2 // 3])
        with pytest.raises(ImageReadError, match=source.name):
            read(source)
    for source, package in ((heic(tmp_path / "a.heic"), "pillow_heif"), (dng(tmp_path / "c.dng", sensor()), "rawpy")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImageReadError, match=r"pip install 'supir\[cameras\]'"):
            read(source)


def test_what_was_made_for_one_is_not_taken_for_another(tmp_path: Path) -> None:
    """Of the same name, changed in between."""
    path = dng(tmp_path / "a.dng", sensor())
    first = read(path)
    dng(path, sensor(128, 64))
    assert read(path).width == 128 != first.width


@pytest.mark.parametrize("grey", [False, True])
def test_an_avif_is_written_with_all_that_came(tmp_path: Path, grey: bool) -> None:
    values = (RAMP[..., :1] if grey else RAMP) // 257
    given = from_pil(Image.fromarray(values[..., 0].astype(np.uint8) if grey else values.astype(np.uint8)))
    alpha = torch.linspace(0, 1, WIDTH).expand(1, HEIGHT, -1).contiguous()
    given = replace(given, alpha=alpha, icc=None if grey else SRGB, texts=(("Title", "a ramp"),), dpi=(300.0, 300.0))
    path = tmp_path / "a.avif"
    write(given, path, record={"model": "tiny", "source_sha256": "0" * 64})
    found = read(path)
    assert (found.width, found.height, found.bits) == (WIDTH, HEIGHT, 8)
    assert (found.rgb - given.rgb).abs().mean() < 0.02
    assert (found.alpha - alpha).abs().mean() < 0.02
    assert found.dpi == pytest.approx((300, 300))
    assert found.icc == (None if grey else SRGB)
    assert b"a ramp" in found.xmp
    verdict = verify(path)
    assert (verdict.holds, verdict.pixels, verdict.record["model"]) == (True, "unchanged", "tiny")
    write(replace(found, pixels=found.pixels.flip(-1)), tmp_path / "b.avif", record=None)
    assert verify(tmp_path / "b.avif").record == {} or verify(tmp_path / "b.avif").pixels == "changed"


def test_an_avif_is_made_of_an_avif(tmp_path: Path) -> None:
    write(from_pil(Image.fromarray((RAMP // 257).astype(np.uint8))), tmp_path / "a.avif")
    [job] = plan_jobs([tmp_path / "a.avif"], None, RestoreOptions(), compare=False)
    assert job.target.name == "a.restored.avif"
    with pytest.raises(ImageWriteError, match="AVIF holds 16384 a side at most"):
        check_target(job.target, (10, 20000))
    with pytest.raises(ImageWriteError, match="AVIF holds 8 bits per channel"):
        write(replace(read(tmp_path / "a.avif"), bits=16), job.target, bits=16)
