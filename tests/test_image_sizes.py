from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from supir.errors import OptionError
from supir.image import (
    Picture,
    fitted,
    pad_to_multiple,
    read,
    read_reduced,
    resize,
    side_by_side,
    working_size,
    write,
    write_sheet,
)
from supir.image.fitting import reference_postprocess, reference_preprocess, reference_size
from supir.options import restore_options

SIDE = st.integers(1, 6000)


@given(SIDE, SIDE, st.floats(0.1, 8), st.integers(0, 2048), st.sampled_from([1, 8, 32, 64]))
def test_working_sizes(width: int, height: int, scale: float, min_size: int, multiple: int) -> None:
    size = working_size(width, height, scale, min_size, multiple)
    assert abs(size.output_width - width * scale) <= max(0.5, 1 - width * scale)
    assert abs(size.output_height - height * scale) <= max(0.5, 1 - height * scale)
    assert size.width >= size.output_width
    assert size.height >= size.output_height
    if max(width, height) <= 4 * min(width, height) and min_size >= multiple:  # padding counts in the area
        assert min(size.width, size.height) >= min_size
    rounded = size.width + size.height  # by how much rounding both sides enlarges the area, at most
    assert size.width * size.height <= max(4 * min_size**2, size.output_width * size.output_height) + rounded
    for padded, side in ((size.padded_width, size.width), (size.padded_height, size.height)):
        assert padded % multiple == 0
        assert 0 <= padded - side < multiple
    if min(width, height) * scale >= max(min_size, 1):
        assert (size.width, size.height) == (size.output_width, size.output_height)
    factor = size.width / (width * scale) if width > height else size.height / (height * scale)  # the aspect is kept
    for found, side in ((size.width, width), (size.height, height)):
        assert abs(found - side * scale * factor) <= max(1.0, 1 - side * scale * factor)


def test_working_size_examples() -> None:
    assert working_size(1000, 700, 1, 1024, 64) == (700, 1000, 1024, 1463, 1024, 1472)
    assert working_size(333, 500, 2, 0, 8) == (1000, 666, 1000, 666, 1000, 672)
    assert working_size(1, 1) == (1, 1, 1, 1, 64, 64)


@pytest.mark.parametrize(("width", "height"), [(128, 1), (1, 128), (20_000, 8), (8, 60_000), (3000, 40)])
@pytest.mark.parametrize("min_size", [256, 1024])
def test_a_strip_is_not_worked_on_at_many_megapixels(width: int, height: int, min_size: int) -> None:
    size = working_size(width, height, 2.0, min_size, 32)
    asked = size.output_width * size.output_height
    assert size.width * size.height < 1.01 * max(4 * min_size**2, asked)
    assert size.padded_width * size.padded_height < 2 * max(
        4 * min_size**2, 32 * max(size.output_width, size.output_height), asked
    )
    assert size.width / size.height == pytest.approx(width / height, rel=0.05)


def test_the_public_codes_sizes_of_a_strip_are_refused() -> None:
    options = restore_options("reference")
    with pytest.raises(OptionError, match=r"128 x 1 pixels would be worked on at 131072 x 1024.*choose another preset"):
        fitted(Picture(pixels=torch.zeros(3, 1, 128)), options, 64)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_scales_that_are_none(scale: float) -> None:
    with pytest.raises(OptionError, match="it must be above 0"):
        working_size(10, 10, scale)


def test_sizes_that_are_none() -> None:
    with pytest.raises(OptionError, match="0x10 pixels"):
        working_size(0, 10)
    with pytest.raises(OptionError, match="must be at least 1"):
        resize(torch.zeros(3, 4, 4), 0, 3)
    with pytest.raises(OptionError, match="multiple is 0"):
        pad_to_multiple(torch.zeros(3, 4, 4), 0)


@pytest.mark.parametrize("size", [(13, 17), (64, 40), (120, 200), (1, 1), (37, 50)])
def test_resize_is_pillows_bicubic(size: tuple[int, int]) -> None:
    source = np.random.default_rng(0).random((37, 50), np.float32)
    expected = np.array(Image.fromarray(source).resize(size[::-1], Image.Resampling.BICUBIC))
    found = resize(torch.from_numpy(source)[None], *size, limits=None)[0].numpy()
    assert np.abs(found - expected).max() < 2e-5


def test_resize_keeps_type_batch_and_limits() -> None:
    source = torch.rand(2, 3, 8, 9) * 2 - 1
    found = resize(source.bfloat16(), 16, 20)
    assert (found.dtype, found.shape) == (torch.bfloat16, (2, 3, 16, 20))
    assert found.abs().max() <= 1
    assert resize(source.sign(), 16, 20, limits=None).abs().max() > 1
    assert torch.equal(resize(source, 16, 20)[1], resize(source[1], 16, 20))
    assert resize(source.double(), 16, 20).dtype == torch.float64
    assert resize(source, 8, 9) is source


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 64))
def test_padding_mirrors(height: int, width: int, multiple: int) -> None:
    source = torch.arange(height * width, dtype=torch.float32).reshape(1, height, width)
    padded = pad_to_multiple(source, multiple)
    assert padded.shape[1] % multiple == 0
    assert padded.shape[2] % multiple == 0
    assert padded.shape[1] - height < multiple
    assert torch.equal(padded[:, :height, :width], source)
    down, right = padded.shape[1] - height, padded.shape[2] - width
    if down < height and right < width:
        expected = torch.nn.functional.pad(source[None], (0, right, 0, down), mode="reflect")[0]
        assert torch.equal(padded, expected)


def test_padding_of_one_pixel_repeats_it() -> None:
    assert torch.equal(pad_to_multiple(torch.full((3, 1, 1), 0.25), 8), torch.full((3, 8, 8), 0.25))


def test_side_by_side() -> None:
    before = Picture(pixels=torch.full((3, 10, 20), -0.5))
    after = Picture(pixels=torch.full((3, 40, 80), 0.5), icc=b"profile", bits=16)
    sheet = side_by_side(before, after)
    assert sheet.pixels.shape == (3, 40, 162)
    assert torch.allclose(sheet.pixels[:, :, :80], torch.tensor(-0.5))
    assert torch.allclose(sheet.pixels[:, :, 82:], torch.tensor(0.5))
    assert (sheet.pixels[:, :, 80:82] == 1).all()
    assert (sheet.icc, sheet.bits, sheet.alpha) == (b"profile", 16, None)


def test_side_by_side_of_grey_and_of_transparent() -> None:
    grey = Picture(pixels=torch.zeros(1, 10, 20))
    clear = Picture(pixels=torch.zeros(3, 10, 20), alpha=torch.zeros(1, 10, 20))
    assert side_by_side(grey, grey).grey
    sheet = side_by_side(grey, clear)
    assert sheet.pixels.shape[0] == 3
    assert (sheet.pixels[:, :, :20] == 0).all()
    assert (sheet.pixels[:, :, 22:] == 1).all()


def test_reference_examples_of_the_description() -> None:
    assert reference_size(512, 512, 1) == (1024, 1024, 512, 512)
    assert reference_size(500, 333, 2) == (1024, 1536, 666, 1000)
    assert reference_size(1000, 700, 1) == (1024, 1472, 700, 1000)


def test_reference_cuts_and_ours_accepts_more_modes() -> None:
    cut = reference_postprocess(torch.full((3, 4, 4), 0.999), 4, 4)
    assert np.asarray(cut).tolist() == [[[254] * 3] * 4] * 4
    for mode in ("L", "RGBA", "P"):
        pixels, size = reference_preprocess(Image.new(mode, (30, 20)), 2, 64)
        assert pixels.shape == (3, size.height, size.width) == (3, 64, 128)


def test_pictures_say_what_is_wrong_with_their_tensors() -> None:
    for pixels in (
        torch.zeros(2, 4, 4),
        torch.zeros(3, 0, 4),
        torch.zeros(3, 4, 4, dtype=torch.float64),
        torch.zeros(4, 4),
    ):
        with pytest.raises(OptionError, match="allowed is float32"):
            Picture(pixels=pixels)
    with pytest.raises(OptionError, match=r"alpha is .*allowed is float32 \(1, 4, 4\)"):
        Picture(pixels=torch.zeros(3, 4, 4), alpha=torch.zeros(1, 4, 5))
    with pytest.raises(OptionError, match="bits is 10"):
        Picture(pixels=torch.zeros(3, 4, 4), bits=10)


@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_sheet_from_file_to_file_is_that_of_the_pictures(tmp_path: Path, mode: str, turn: int) -> None:
    """In bands of rows, so that its size does not matter."""
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = turn
    for name, (height, width), kind in (("before", (150, 90), "RGB"), ("after", (600, 360), mode)):
        shape = (height, width, {"RGB": 3, "L": 1, "RGBA": 4}[kind])
        values = random.integers(0, 255, shape, dtype=np.uint8)
        Image.fromarray(values[..., 0] if kind == "L" else values, kind).save(tmp_path / f"{name}.png", exif=exif)
    before, after = read(tmp_path / "before.png"), read(tmp_path / "after.png")
    write_sheet(tmp_path / "before.png", tmp_path / "after.png", tmp_path / "sheet.png")
    write(side_by_side(before, after), tmp_path / "expected.png")
    found, expected = read(tmp_path / "sheet.png"), read(tmp_path / "expected.png")
    assert (found.pixels.shape, found.grey, found.alpha) == (expected.pixels.shape, expected.grey, None)
    assert float((found.pixels - expected.pixels).abs().max()) < 2.5 / 127.5


def test_a_file_is_made_small_while_it_is_decoded(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 90 * 300 * 3).reshape(90, 300, 3).astype(np.uint16)
    write(Picture(pixels=torch.from_numpy(values / 32767.5 - 1).permute(2, 0, 1).float(), bits=16), tmp_path / "16.png")
    whole, small = read_reduced(tmp_path / "16.png", 300), read_reduced(tmp_path / "16.png", 100)
    assert (whole.bits, whole.width, small.bits) == (16, 300, 8)
    assert (small.width, small.height) == (100, 30)
    assert float((small.pixels - resize(whole.pixels, 30, 100)).abs().max()) < 0.03
