"""Weights of 8 bits: what is stored, what comes back, and how far the networks' outputs move; feed-forward in rows."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from supir.errors import OptionError
from supir.models import unet
from supir.models.quantized import (
    QuantizedConv2d,
    QuantizedLinear,
    check_quantized,
    e4m3_bits_as_bfloat16,
    quantize_weights,
    quantized_kind,
)
from supir.models.unet import FeedForwardInRows
from tiny import TRUNK, tiny_components

BOUNDS = {"int8": 0.02, "float8": 0.08}
"""RMS error over RMS of one denoiser evaluation, float32 arithmetic, random weights."""


@torch.no_grad()
def evaluated(unet: nn.Module, adaptor: nn.Module, dtype: torch.dtype = torch.float32, side: int = 16) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    latent, hint = (torch.randn(2, 4, side, side, generator=draw).to(dtype) for _ in range(2))
    tokens = torch.randn(2, 7, TRUNK["cross_attention_dim"], generator=draw).to(dtype)
    vector = torch.randn(2, TRUNK["projection_class_embeddings_input_dim"], generator=draw).to(dtype)
    timestep, added = torch.tensor([500, 500]), {"vector": vector}
    control = adaptor(latent, timestep, tokens, added, hint)
    found: Tensor = unet(latent, timestep, tokens, added_cond_kwargs=added, control=control).sample
    return found.float()


def networks() -> tuple[nn.Module, nn.Module]:
    """Copies of the tiny ones; their zero-initialised layers are random."""
    unet, adaptor = copy.deepcopy((tiny_components()["unet"], tiny_components()["adaptor"]))
    assert isinstance(unet, nn.Module)
    assert isinstance(adaptor, nn.Module)
    return unet, adaptor


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@pytest.fixture(scope="module")
def plain() -> Tensor:
    return evaluated(*networks())


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_pieces_store_what_the_whole_would(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the pieces, the same bytes; and the weight that was given stays what it was."""
    weight = torch.randn(37, 11, generator=torch.Generator().manual_seed(0))
    given = weight.clone()
    found = []
    for values in (37 * 11, 25, 1):
        monkeypatch.setattr("supir.models.quantized._VALUES_AT_ONCE", values)
        layer = nn.Sequential(nn.Linear(11, 37))
        layer[0].weight.data = weight
        found.append(quantize_weights(layer, kind)[0])
    assert torch.equal(weight, given)
    for other in found[1:]:
        assert torch.equal(other.weight, found[0].weight)
        assert torch.equal(other.scale, found[0].scale)


def test_every_float8_is_widened_exactly() -> None:
    stored = torch.arange(-128, 128, dtype=torch.int16).to(torch.int8)
    expected = stored.view(torch.float8_e4m3fn).float()
    number = ~expected.isnan()  # weights are clamped, so these two never come
    assert number.sum() == 254
    assert torch.equal((e4m3_bits_as_bfloat16(stored).float() * 2.0**120)[number], expected[number])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_the_weights_that_come_back_are_near(kind: str, dtype: torch.dtype) -> None:
    """int8: half a step of the channel's largest; float8: half of the last of four significant bits."""
    layer = nn.Sequential(nn.Linear(64, 32), nn.Conv2d(8, 16, 3))
    before = [part.weight.detach().clone() for part in layer]
    before[0][3] = 0  # a channel of zeros
    layer[0].weight.data[3] = 0
    layer.to(dtype)
    quantize_weights(layer, kind)
    assert isinstance(layer[0], QuantizedLinear)
    assert isinstance(layer[1], QuantizedConv2d)
    for part, weight in zip(layer, before, strict=True):
        assert part.weight.dtype is torch.int8
        largest = weight.flatten(1).abs().amax(1).view(-1, *[1] * (weight.ndim - 1))
        allowed = largest / 127 / 2 if kind == "int8" else weight.abs() / 16 + largest / 448 * 2**-10
        rounding = weight.abs() * (2**-7 if dtype is torch.bfloat16 else 1e-6)
        assert ((part.dequantized(dtype).float() - weight).abs() <= allowed * 1.01 + rounding + 1e-9).all()


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_the_networks_stay_within_their_bounds(kind: str, plain: Tensor) -> None:
    found = networks()
    held = sum(p.nbytes for network in found for p in network.parameters())
    for network in found:
        quantize_weights(network, kind)
        assert quantized_kind(network) == kind
        assert network.dtype is torch.float32
    assert 1e-4 < distance(evaluated(*found), plain) < BOUNDS[kind]
    assert sum(p.nbytes for network in found for p in network.parameters()) < 0.35 * held


@pytest.mark.parametrize("kind", [None, "int8"])
def test_bfloat16_and_channels_last_stay_within_their_bounds(kind: str | None, plain: Tensor) -> None:
    found = networks()
    for network in found:
        nn.Module.to(network, torch.bfloat16)
        if kind is not None:
            quantize_weights(network, kind)
        network.to(memory_format=torch.channels_last)
        assert network.dtype is torch.bfloat16
    assert 1e-4 < distance(evaluated(*found, dtype=torch.bfloat16), plain) < 0.04


def test_channels_last_is_the_same_in_float32(plain: Tensor) -> None:
    found = networks()
    for network in found:
        network.to(memory_format=torch.channels_last)
    assert distance(evaluated(*found), plain) < 1e-5


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_feed_forward_in_rows_is_the_same(rows: int, plain: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    found = networks()
    for network in found:
        for layer in network.modules():
            if isinstance(layer, FeedForwardInRows):
                layer.__class__ = FeedForward
    as_diffusers = evaluated(*found)
    assert distance(plain, as_diffusers) < 1e-6
    monkeypatch.setattr(unet, "TOKENS_AT_ONCE", rows)
    assert distance(evaluated(*networks()), as_diffusers) < 1e-5


def test_every_feed_forward_is_in_rows_and_trains_as_before() -> None:
    unet, adaptor = networks()
    layers = [layer for network in (unet, adaptor) for layer in network.modules() if isinstance(layer, FeedForward)]
    assert layers
    assert {type(layer) for layer in layers} == {FeedForwardInRows}
    given = torch.randn(2, 6, layers[0].net[2].out_features, requires_grad=True)
    layers[0](given).sum().backward()
    assert given.grad is not None
    with torch.no_grad():
        assert torch.allclose(layers[0](given), FeedForward.forward(layers[0], given), atol=1e-6)


def test_a_device_without_the_type_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match=r"quantize is 'float8', which mps does not have; use int8"):
        check_quantized("float8", "mps")
    for kind, device in (("int8", "mps"), (None, "mps"), ("float8", "cuda:1"), ("float8", "cpu")):
        check_quantized(kind, device)
