"""Grain: measured, and put back as it was; nothing is put on what has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from supir.image import read, read_record, write
from supir.image.grain import Grain, grain_of
from supir.image.picture import Picture
from supir.restoration import streaming
from tiny import tiny_pipeline

LEVEL = 1 / 255
SIZE = 288, 352


def scene() -> Tensor:
    """(1, H, W) in [0, 1]: smooth, with edges and a part full of detail."""
    height, width = SIZE
    down, across = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None]
    grey = 0.15 + 0.7 * across * (0.6 + 0.4 * down)
    grey[60:120, 200:260] = 0.8
    detail = torch.rand(64, 96, generator=torch.Generator().manual_seed(9))
    grey[200:264, 32:128] = detail
    return grey[None]


def on_film(grey: Tensor, strength: float, seed: int = 1) -> Tensor:
    """With grain of some pixels, strongest in the middle of the brightness; rounded, in [-1, 1]."""
    noise = torch.randn(1, 1, SIZE[0] + 4, SIZE[1] + 4, generator=torch.Generator().manual_seed(seed))
    row = torch.tensor([1.0, 3.0, 4.0, 3.0, 1.0])
    kernel = row * row[:, None]
    grain = F.conv2d(noise, (kernel / kernel.square().sum().sqrt())[None, None])[0]
    found = grey + strength * LEVEL * (0.4 + 2.4 * grey * (1 - grey)) * grain
    return (found.clamp(0, 1) * 255).round() / 255 * 2 - 1


def alike(noise: Tensor, shift: tuple[int, int]) -> float:
    """How much of noise is the same some pixels away."""
    return float((noise * noise.roll(shift, (0, 1))).mean() / noise.square().mean())


def measured(pixels: Tensor) -> Grain | None:
    return grain_of(lambda rows, columns: pixels[:, rows, columns] * 0.5 + 0.5, *pixels.shape[1:])


def test_grain_is_put_back_as_strong_and_as_coarse_as_it_was() -> None:
    pixels = on_film(scene(), 8.0)
    grain = measured(pixels)
    assert grain is not None
    flat = Picture(pixels=torch.full((1, *SIZE), 0.1))
    drawn = grain.put_on(flat, 1.0, 7).pixels[0] - 0.1
    true = on_film(torch.full((1, *SIZE), 0.55), 8.0)[0] - 0.1
    assert drawn.std() == pytest.approx(float(true.std()), rel=0.2)
    for shift in ((0, 1), (1, 0), (1, 1), (0, 2)):
        assert alike(drawn, shift) == pytest.approx(alike(true - true.mean(), shift), abs=0.12)
    half = grain.put_on(flat, 0.5, 7).pixels[0] - 0.1
    assert torch.allclose(half, drawn / 2, atol=1e-5)
    dark = grain.put_on(Picture(pixels=torch.full((1, *SIZE), -0.75)), 1.0, 7).pixels[0]
    assert dark.std() < 0.9 * drawn.std()


def test_grain_knows_its_place_and_its_seed() -> None:
    grain = measured(on_film(scene(), 8.0))
    assert grain is not None
    picture = Picture(pixels=torch.zeros(3, 600, 500))
    whole = grain.put_on(picture, 1.0, 3).pixels
    assert torch.equal(whole[0], whole[2])
    bands = [
        grain.put_on(Picture(pixels=picture.pixels[:, top : top + 131]), 1.0, 3, height=600, top=top).pixels
        for top in range(0, 600, 131)
    ]
    assert torch.allclose(torch.cat(bands, 1), whole, atol=1e-5)
    assert torch.equal(grain.put_on(picture, 1.0, 3).pixels, whole)
    assert not torch.allclose(grain.put_on(picture, 1.0, 4).pixels, whole, atol=0.01)


@pytest.mark.parametrize("strength", [0.0, 0.6])
def test_a_clean_picture_has_no_grain(strength: float) -> None:
    assert measured(on_film(scene(), strength)) is None


def test_texture_beside_smooth_parts_is_no_grain() -> None:
    pixels = on_film(scene(), 0.0)
    pixels[:, :, 160:] += 0.1 * torch.randn(SIZE, generator=torch.Generator().manual_seed(5))[:, 160:]
    assert measured(pixels) is None


def test_the_example_photo_and_what_is_too_small_have_none() -> None:
    assert measured(read("examples/photo.jpg").pixels) is None
    assert measured(torch.zeros(1, 40, 300)) is None


@pytest.mark.slow
def test_results_have_their_grain_whole_or_streamed_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick: dict[str, Any] = {"min_size": 64, "num_steps": 1, "tile": 512, "vae_tile": 512, "scale": 1.0, "seed": 5}
    source = tmp_path / "in.png"
    write(Picture(pixels=on_film(scene(), 8.0)), source)
    pipeline, found = tiny_pipeline(), {}
    for large, share in ((10**9, 0.0), (10**9, 1.0), (1000, 1.0)):
        monkeypatch.setattr(streaming, "LARGE", large)
        target = tmp_path / f"{large}-{share}.png"
        pipeline.restore_file(source, target, preview=tmp_path / "preview.png", keep_grain=share, **quick)
        found[large, share] = read(target).pixels
        assert read_record(target).get("grain", "").startswith("1 of " if share else "")
    bare, grained, streamed = found.values()
    assert (grained - streamed).abs().max() <= 2 * LEVEL * 1.01
    put = ((grained - bare)[(bare.abs() < 0.7)]).std() / 2 / LEVEL
    assert 4.0 < float(put) < 9.0
    write(Picture(pixels=on_film(scene(), 0.0)), source)
    pipeline.restore_file(source, tmp_path / "clean.png", keep_grain=1.0, **quick)
    pipeline.restore_file(source, tmp_path / "off.png", keep_grain=0.0, **quick)
    assert read_record(tmp_path / "clean.png")["grain"] == "none found"
    clean, off = (np.asarray(read(tmp_path / name).pixels) for name in ("clean.png", "off.png"))
    assert np.array_equal(clean, off)
