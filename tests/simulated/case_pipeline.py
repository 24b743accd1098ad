"""The pipeline makes the same picture on the device, and waits for it at most once a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from simulated import device
from simulated.conftest import QUICK, some_pixels
from supir import image
from supir.image import Picture
from supir.options import PRESETS
from supir.pipeline import SupirPipeline
from supir.restoration import streaming

CASES = [
    *({"preset": name} for name in PRESETS),
    {"solver": "dpmpp_2m", "eta": 0.5},
    {"solver": "reference_dpmpp_2m"},
    {"grid": "log_snr", "preset": "fast"},
    {"tile": 64, "vae_tile": 64, "tile_batch": 2},
    {"tile": 64, "tile_prompts": "a cat|a dog"},
    {"adaptor_every": 2, "deep_cache_every": 2},
    {"color_fix": "adain"},
    {"color_fix": "none", "start_sigma": 3.0},
    {"text_guidance": 1.0, "text_guidance_start": "off"},
    {"text_guidance_low": 1.0, "control_scale_start": 0.5},
    {"prompt": "(a cat:1.3) BREAK a dog"},
    {"region": "0,0,50%,100%; prompt=a dog"},
    {"region": "0,0,50%,100%; prompt=a dog; control_scale=0.3", "tile": 64, "text_guidance": 3.0},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_makes_the_same_picture(
    there: SupirPipeline, same_as_on_the_processor: Callable[..., None], case: dict[str, object]
) -> None:
    options = there.options(**(QUICK | case))
    with device.counted() as found:
        pixels = there.restore_pixels(some_pixels(), options).pixels
    assert found.waits <= options.num_steps, "more than one wait a step"
    same_as_on_the_processor(pixels, options)


def test_without_connectors_the_adaptor_rests(
    there: SupirPipeline, same_as_on_the_processor: Callable[..., None]
) -> None:
    """That control_scale is 0 is known without asking the device."""
    calls: list[object] = []
    hook = there.adaptor.register_forward_hook(lambda *given: calls.append(given))
    options = there.options(**QUICK, control_scale=0.0)
    same_as_on_the_processor(there.restore_pixels(some_pixels(), options).pixels, options)
    assert calls == []
    there.restore_pixels(some_pixels(), options.replace(control_scale=0.5))
    assert len(calls) == options.num_steps
    hook.remove()


def test_a_batch_is_made_of_the_same_pictures(
    there: SupirPipeline, same_as_on_the_processor: Callable[..., None]
) -> None:
    options = there.options(**QUICK)
    same_as_on_the_processor(there.restore_pixels(some_pixels(2), options).pixels, options, batch=2)


def test_the_preview_is_the_same(there: SupirPipeline, near: SupirPipeline) -> None:
    picture = Picture(pixels=some_pixels()[0])
    found, expected = (each.preview(picture, **QUICK).pixels for each in (there, near))
    assert torch.allclose(found.cpu(), expected, atol=1e-3)


@pytest.mark.parametrize("color_fix", ["wavelet", pytest.param("adain", marks=pytest.mark.slow)])
def test_a_large_picture_streams(
    there: SupirPipeline, near: SupirPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, color_fix: str
) -> None:
    monkeypatch.setattr(streaming, "LARGE", 1000)
    image.write(Picture(pixels=some_pixels()[0]), tmp_path / "photo.png")
    for name, pipeline in (("there", there), ("near", near)):
        pipeline.restore_file(
            tmp_path / "photo.png", tmp_path / f"{name}.png", tile=64, vae_tile=64, color_fix=color_fix, **QUICK
        )
    found, expected = (image.read(tmp_path / f"{name}.png").pixels for name in ("there", "near"))
    assert torch.allclose(found, expected, atol=0.02)
