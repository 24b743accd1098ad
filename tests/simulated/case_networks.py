"""Ways to hold the networks make the same picture on the device; answers that are not finite are caught there too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from simulated.conftest import QUICK, fresh_pipeline, some_pixels
from supir.models.unet import FeedForwardInRows
from supir.pipeline import SupirPipeline
from supir.restoration.finite import WiderDtypeWarning
from supir.training.negatives import NegativeOptions, img2img
from test_finite import overflowing


def test_model_offload(fresh: SupirPipeline, same_as_on_the_processor: Callable[..., None]) -> None:
    fresh.enable_model_cpu_offload(device="sim")
    options = fresh.options(**QUICK)
    for _ in range(2):
        same_as_on_the_processor(fresh.restore_pixels(some_pixels(), options).pixels, options)
    assert {part.device.type for part in (fresh.unet, fresh.autoencoder, fresh.text_encoder)} == {"cpu"}


@pytest.mark.parametrize("before", [True, False])
def test_layerwise_casting(fresh: SupirPipeline, near: SupirPipeline, before: bool) -> None:
    """Storing in float16 what is calculated in float32."""
    fresh.to("cpu" if not before else "sim")
    for network in (fresh.unet, fresh.adaptor):
        network.enable_layerwise_casting(storage_dtype=torch.float16, compute_dtype=torch.float32)
    fresh.to("sim")
    options = fresh.options(**QUICK)
    found = fresh.restore_pixels(some_pixels(), options).pixels
    expected = near.restore_pixels(some_pixels(), options).pixels
    assert found.device.type == "sim"
    assert float(10 * torch.log10(4 / (found.cpu() - expected).square().mean())) > 35


def test_a_first_answer_that_is_not_finite_is_asked_for_again() -> None:
    pipeline = overflowing().to("sim", torch.float16)
    options = pipeline.options(**QUICK)
    with pytest.warns(WiderDtypeWarning, match="going on in bfloat16"):
        found = pipeline.restore_pixels(some_pixels(), options).pixels
    assert found.isfinite().all()
    assert pipeline.identity["networks"] == "bfloat16 on sim, autoencoder float32"  # widened when it came


def test_conditions_from_the_processor_are_moved(there: SupirPipeline, near: SupirPipeline) -> None:
    options = there.options(**QUICK)
    words = near.embed_words(options, 1)
    found = there.restore_pixels(some_pixels(), options, conditions=words).pixels
    assert torch.allclose(found.cpu(), near.restore_pixels(some_pixels(), options).pixels, atol=1e-3)


def test_negative_pictures_are_painted_there(there: SupirPipeline, near: SupirPipeline) -> None:
    making = NegativeOptions(num_steps=2)
    found, expected = (img2img(each, some_pixels(1, 64, 64), making, [0]) for each in (there, near))
    assert torch.allclose(found, expected, atol=1e-3)


def test_feed_forwards_are_in_rows_on_the_processor_alone(
    there: SupirPipeline, near: SupirPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    rows = FeedForwardInRows._rows
    monkeypatch.setattr(
        FeedForwardInRows, "_rows", lambda self, tokens: seen.append(tokens.device.type) or rows(self, tokens)
    )
    for pipeline in (there, near):
        pipeline.restore_pixels(some_pixels(), pipeline.options(**QUICK))
    assert set(seen) == {"cpu"}


def test_a_pipeline_that_is_cast_keeps_its_autoencoder_from_overflowing() -> None:
    pipeline = fresh_pipeline().to("sim", torch.float16)
    pipeline.restore_pixels(some_pixels(), pipeline.options(**QUICK))
    assert pipeline.autoencoder.dtype is torch.float32
