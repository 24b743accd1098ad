"""A first answer that is not finite is asked for again in a wider type, and the record says in which."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from supir.errors import NotFiniteError
from supir.pipeline import SupirPipeline
from supir.restoration import finite
from supir.restoration.finite import WiderDtypeWarning
from test_pipeline import picture
from tiny import tiny_components, tiny_pipeline

QUICK = {"min_size": 16, "num_steps": 2, "scale": 1.0, "text_guidance": 1.0, "text_guidance_start": "off"}
TOO_MUCH = 3e4
"""Times what the first layer answers is beyond float16's 65 504, while its weights are not."""


def overflowing() -> SupirPipeline:
    """A tiny pipeline that float32 and bfloat16 bear, and float16 does not."""
    parts = {
        name: copy.deepcopy(part) if isinstance(part, nn.Module) else part for name, part in tiny_components().items()
    }
    with torch.no_grad():
        for weight in parts["unet"].conv_in.parameters():
            weight.mul_(TOO_MUCH)
    return tiny_pipeline(**parts)


def restored(pipeline: SupirPipeline, **options: object) -> tuple[Tensor, dict[str, str]]:
    [found] = pipeline(picture(48, 48), **(QUICK | options))
    return found.picture.pixels, found.record


def test_float16_that_overflows_becomes_bfloat16_once_and_is_said() -> None:
    exact, _ = restored(overflowing())
    pipeline = overflowing().to(torch.float16)
    steps: list[int] = []
    with pytest.warns(WiderDtypeWarning, match="NaN or infinity in float16; going on in bfloat16") as caught:
        [found] = pipeline(picture(48, 48), **QUICK, on_step=lambda step: steps.append(step.index))
    assert len(caught) == 1
    assert steps == [0, 1]  # nothing was sampled twice
    assert float(10 * torch.log10(4 / (found.picture.pixels - exact).square().mean())) > 25
    assert found.record["networks"] == "bfloat16, autoencoder float32"
    assert {pipeline.unet.dtype, pipeline.adaptor.dtype, pipeline.text_encoder.dtype} == {torch.bfloat16}
    assert pipeline.autoencoder.dtype is torch.float32  # where SDXL's stays finite
    again, _ = restored(pipeline)  # without a warning, which would fail this test
    assert torch.equal(again, found.picture.pixels)


def test_caches_and_tiles_begin_anew_in_the_wider_type() -> None:
    many = {"tile": 64, "tile_batch": 2, "adaptor_every": 2, "deep_cache_every": 2, "num_steps": 3}
    pipeline = overflowing().to(torch.float16)
    with pytest.warns(WiderDtypeWarning):
        [found] = pipeline(picture(64, 96), **(QUICK | many))
    wide = overflowing().to(torch.float16)  # with the same rounding of the weights
    for network in (wide.unet, wide.adaptor, wide.text_encoder, wide.text_encoder_2):
        nn.Module.to(network, torch.bfloat16)
    [expected] = wide(picture(64, 96), **(QUICK | many))
    assert torch.equal(found.picture.pixels, expected.picture.pixels)


def test_without_bfloat16_it_becomes_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supir.weights.device.has_bfloat16", lambda kind: False)
    pipeline = overflowing().to(torch.float16)
    with pytest.warns(WiderDtypeWarning, match="going on in float32"):
        _, record = restored(pipeline)
    assert "networks" not in record  # float32 on a processor, as by default


def test_what_no_type_helps_ends_with_its_cause() -> None:
    pipeline = tiny_pipeline(unet=copy.deepcopy(tiny_components()["unet"]))
    with torch.no_grad():
        pipeline.unet.conv_out.bias.fill_(torch.nan)
    with pytest.raises(NotFiniteError, match="in float32, beyond which there is nothing: the weights are damaged"):
        restored(pipeline)
    pipeline = tiny_pipeline(autoencoder=copy.deepcopy(tiny_components()["autoencoder"]))
    with torch.no_grad():
        pipeline.autoencoder.quant_conv.bias.fill_(torch.nan)
    with pytest.raises(NotFiniteError, match="the autoencoder answers with NaN or infinity in float32"):
        restored(pipeline)


def test_weights_that_are_held_in_their_type_say_what_to_set() -> None:
    pipeline = overflowing().to(torch.float16)
    pipeline.unet.enable_layerwise_casting(storage_dtype=torch.float16, compute_dtype=torch.float16)
    with pytest.raises(NotFiniteError, match=r"layer by layer: load it with dtype bfloat16 \(--dtype\)"):
        restored(pipeline)


def test_what_overflows_later_is_said() -> None:
    calls: list[int] = []
    pipeline = tiny_pipeline(unet=copy.deepcopy(tiny_components()["unet"]))
    pipeline.unet.conv_out.register_forward_hook(lambda _, __, output: output * torch.nan if calls else calls.append(1))
    with pytest.raises(NotFiniteError, match="after its first step, in float32"):
        restored(pipeline)


def test_the_first_answer_alone_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Tensor] = []
    monkeypatch.setattr(finite, "is_finite", lambda numbers: bool(looks.append(numbers)) or True)
    restored(tiny_pipeline(), num_steps=5)
    assert len(looks) == 2  # the first answer, and what all came to
