"""Pictures without colours of their own: what is taken for one, and that the networks add none to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from supir.image import glimpsed, read, read_frame, read_record, read_toning, write
from supir.image.picture import Picture, luma
from supir.image.toning import toning_of_pixels
from supir.options import RestoreOptions
from supir.restoration import streaming
from tiny import tiny_pipeline

QUICK: dict[str, Any] = {"min_size": 64, "num_steps": 1, "tile": 64, "vae_tile": 64, "scale": 1.0}
SEPIA, SELENIUM = (0.06, -0.005, -0.13), (0.02, -0.01, 0.04)
LEVEL = 1 / 255


def shades(height: int = 150, width: int = 200) -> Tensor:
    """(1, H, W) in [0, 1]: a slope with shapes of every brightness on it, rounded to levels."""
    generator = torch.Generator().manual_seed(3)
    grey = torch.linspace(0.05, 0.95, width).repeat(height, 1)
    for _ in range(40):
        top, left = (int(torch.randint(0, side - 20, (), generator=generator)) for side in (height, width))
        grey[top : top + 20, left : left + 15] = torch.rand((), generator=generator)
    return ((grey * 255).round() / 255)[None]


def toned(grey: Tensor, tone: tuple[float, float, float], noise: float = 0.0) -> Tensor:
    """(3, H, W) in [-1, 1]: offsets that vanish in black and white, and noise in colour alone."""
    strength = 4 * grey * (1 - grey)
    found = torch.cat([grey + strength * offset for offset in tone])
    hum = noise * LEVEL * torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    found = found + hum - luma(hum)
    return (found.clamp(0, 1) * 255).round() / 255 * 2 - 1


def colours_beside(pixels: Tensor, model: Tensor) -> Tensor:
    """Offsets of the channels from their luma, less those of a model, in levels of 255."""
    return ((pixels - luma(pixels)) - (model - luma(model))) / 2 / LEVEL


def test_equal_channels_are_grey_and_stay_equal() -> None:
    toning = toning_of_pixels(shades().expand(3, -1, -1) * 2 - 1)
    assert toning is not None
    assert toning.note == {"colours": "grey"}
    found = toning.coloured(torch.rand(1, 8, 9) * 2 - 1, (8, 9))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


@pytest.mark.parametrize("tone", [SEPIA, SELENIUM])
@pytest.mark.parametrize("noise", [0.0, 6.0])
def test_a_tone_is_found_under_colour_noise(tone: tuple[float, float, float], noise: float) -> None:
    grey = shades()
    toning = toning_of_pixels(toned(grey, tone, noise))
    assert toning is not None
    assert toning.note == {"colours": "one tone"}
    clean = toned(grey, tone)
    found = toning.coloured(luma(clean), grey.shape[1:])
    assert colours_beside(found, clean).abs().mean() < 1.0
    assert luma(found).sub(luma(clean)).abs().max() / 2 < 1.5 * LEVEL


def test_a_tone_that_drifts_across_the_paper_is_kept_with_its_drift() -> None:
    grey = shades()
    yellowed = toned(grey, SEPIA)
    yellowed[2] -= 2 * 20 * LEVEL * torch.linspace(0, 1, grey.shape[2])
    toning = toning_of_pixels(yellowed)
    assert toning is not None
    found = toning.coloured(luma(yellowed), grey.shape[1:])
    assert colours_beside(found, yellowed).abs().mean() < 2.0


def test_grey_with_colour_noise_is_grey() -> None:
    toning = toning_of_pixels(toned(shades(), (0, 0, 0), 6.0))
    assert toning is not None
    assert toning.note == {"colours": "grey"}


@pytest.mark.parametrize("tone", [(0, 0, 0), SEPIA])
def test_a_small_thing_in_colour_makes_a_picture_of_colours(tone: tuple[float, float, float]) -> None:
    pixels = toned(shades(), tone, 2.0)
    pixels[:, 70:76, 50:56] = torch.tensor([0.6, -0.4, -0.4])[:, None, None]
    assert toning_of_pixels(pixels) is None


def test_a_photo_in_colour_has_no_tone() -> None:
    assert toning_of_pixels(read("examples/photo.jpg").pixels) is None


@pytest.mark.parametrize("large", [10**9, 1000])
def test_black_and_white_in_rgb_comes_back_as_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(streaming, "LARGE", large)
    source, target, preview = (tmp_path / name for name in ("in.png", "out.png", "preview.png"))
    values = (shades(96, 128)[0] * 255).numpy().astype(np.uint8)
    Image.fromarray(np.repeat(values[..., None], 3, 2)).save(source)
    record = tiny_pipeline().restore_file(source, target, preview=preview, **QUICK | {"color_fix": "none"})
    assert record["colours"] == read_record(target)["colours"] == "grey"
    for path in (target, preview):
        with Image.open(path) as image:
            assert image.mode == "RGB"
            red, green, blue = np.moveaxis(np.array(image), 2, 0)
        assert np.array_equal(red, green)
        assert np.array_equal(green, blue)


def test_a_toned_print_is_the_same_streamed_and_gets_no_other_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, pixels = tmp_path / "in.png", toned(shades(96, 128), SEPIA, 4.0)
    write(Picture(pixels=pixels), source)
    found = []
    for large in (10**9, 1000):
        monkeypatch.setattr(streaming, "LARGE", large)
        tiny_pipeline().restore_file(source, tmp_path / f"{large}.png", **QUICK | {"color_fix": "none"})
        found.append(read(tmp_path / f"{large}.png").pixels)
    assert (found[0] - found[1]).abs().max() <= 2 * LEVEL * 1.01
    toning = toning_of_pixels(pixels)
    assert toning is not None
    own = toning.coloured(luma(found[0]), found[0].shape[1:])
    inside = (found[0].abs() < 1).all(0)
    assert colours_beside(found[0], own)[:, inside].abs().max() < 2.0
    assert read_record(tmp_path / "1000.png")["colours"] == "one tone"


def test_glimpses_of_a_grey_picture_are_grey(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    write(Picture(pixels=toned(shades(96, 128), (0, 0, 0))), source)
    size, frame = read_frame(source)
    options = RestoreOptions(scale=1.0, min_size=64)
    seen = glimpsed(torch.rand(3, 48, 64), size, frame, options, 32, read_toning(source, 64)).pixels
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])
