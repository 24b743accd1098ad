"""Group norms that agree across tiles: nearer to the untiled result, and nothing of the network is touched for it."""

from __future__ import annotations

import threading
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from supir.models.norms import normalised, normed_together, shared_group_statistics, statistics
from supir.restoration.restorer import Restorer
from supir.tensors.tiling import mosaic
from test_pipeline import picture
from tiny import randomised, tiny_pipeline


def applied(norm: nn.GroupNorm, x: Tensor, of: Tensor) -> Tensor:
    return normalised(x, statistics([of], norm.num_groups), norm.weight, norm.bias, norm.eps)


def network() -> nn.Sequential:
    layers = nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4, affine=False))
    randomised(layers, 0)
    return layers


def test_its_own_statistics_make_no_difference() -> None:
    norm = nn.GroupNorm(4, 8)
    randomised(norm, 0)
    x = torch.randn(2, 8, 5, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(applied(norm, x, x), norm(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(applied(norm, x[..., 1:3], x), norm(x)[..., 1:3], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ratio", [3, 10, 30])
def test_sixteen_bits_lose_no_more_than_the_native_norm(kind: torch.dtype, ratio: int) -> None:
    """Far from zero the mean cancels: what is calculated in 16 bits is then wrong by more than its last place."""
    norm = nn.GroupNorm(4, 8)
    randomised(norm, 0)
    x = (torch.randn(2, 8, 64, 64, generator=torch.Generator().manual_seed(1)) + ratio).to(kind)
    exact = norm.double()(x.double())
    norm = norm.to(kind)
    error, native = ((each.double() - exact).square().mean().sqrt() for each in (applied(norm, x, x), norm(x)))
    assert error < 1.05 * native


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = nn.GroupNorm(4, 8)
    randomised(norm, 0)
    x = torch.randn(2, 8, 5, 6, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    whole = applied(norm, x, x)
    monkeypatch.setattr("supir.models.norms._VALUES_AT_ONCE", 130)
    assert torch.equal(applied(norm, x, x), whole)


def test_of_several_parts_the_averages_count_by_pixels() -> None:
    norm = nn.GroupNorm(2, 4)
    wide, narrow = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 2)
    mean, variance = statistics([wide, narrow], 2)
    (one, spread), (other, narrow_spread) = statistics([wide], 2), statistics([narrow], 2)
    torch.testing.assert_close(mean, 0.75 * one + 0.25 * other)
    torch.testing.assert_close(variance, 0.75 * spread + 0.25 * narrow_spread)
    found = torch.cat(list(normed_together(norm, [wide, narrow])), -1)
    torch.testing.assert_close(found[:, :2].mean(), torch.zeros(()), atol=1e-6, rtol=0)
    assert not any(module._forward_pre_hooks or "forward" in vars(module) for module in norm.modules())


def test_the_network_is_left_as_it_is_also_by_a_failure() -> None:
    layers = network()
    seen: list[str] = []
    x, other = torch.randn(2, 1, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    before = layers(x)

    def hooked(module: nn.Module, kept: Any) -> Any:
        """As those who move weights do: a forward of the instance's own."""

        def forward(*given: Any) -> Any:
            seen.append(type(module).__name__)
            return kept(*given)

        return forward

    for module in layers:
        module.forward = hooked(module, module.forward)  # type: ignore[method-assign]
    kept = [module.forward for module in layers]
    alike = shared_group_statistics(layers, other)
    assert not torch.allclose(alike(x), before)
    with pytest.raises(RuntimeError):
        alike(torch.zeros(1, 5, 6, 6))
    assert not torch.allclose(alike(x), before)
    with pytest.raises(RuntimeError):
        shared_group_statistics(layers, torch.zeros(1, 5, 6, 6))
    assert torch.equal(layers(x), before)
    assert [module.forward for module in layers] == kept
    assert seen.count("GroupNorm") >= 8


def test_another_thread_is_not_touched() -> None:
    layers = network()
    x, other = torch.randn(2, 1, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    plain, wanted = layers(x), shared_group_statistics(layers, other)(x)
    found: dict[str, Tensor] = {}
    inside, may_go_on = threading.Event(), threading.Event()

    def waiting(part: Tensor) -> Tensor:
        part = layers[0](part)
        inside.set()
        assert may_go_on.wait(60)
        return layers[2](layers[1](part))

    may_go_on.set()
    alike = shared_group_statistics(waiting, other)
    inside.clear()
    may_go_on.clear()
    thread = threading.Thread(target=lambda: found.update(alike=alike(x)))
    thread.start()
    assert inside.wait(60)
    found["plain"] = layers(x)
    may_go_on.set()
    thread.join()
    assert torch.equal(found["plain"], plain)
    assert torch.equal(found["alike"], wanted)


def test_a_mosaic_is_cut_from_everywhere() -> None:
    x = torch.arange(40.0 * 56).reshape(1, 1, 40, 56)
    found = mosaic(x, 16, align=2)
    assert found.shape == (1, 1, 16, 16)
    assert found[0, 0, 0, 0] == 0
    assert found[0, 0, -1, -1] == x[0, 0, -1, -1]
    assert mosaic(x, 48).shape == (1, 1, 40, 48)
    assert torch.equal(mosaic(x, 64), x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "share"), [("encode_degraded", 0.5), pytest.param("decode", 0.85, marks=pytest.mark.slow)]
)
def test_tiles_agree_better_with_the_whole(way: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture dark on the left and bright on the right, whose tiles differ in their statistics."""
    pipeline = tiny_pipeline()
    autoencoder = deepcopy(pipeline.autoencoder)
    for part in (autoencoder.degraded_encoder, autoencoder.decoder):
        part.mid_block.attentions[0] = None  # looks at all of a tile, and no norm makes that agree
    pixels = picture(512, 1024).pixels[None] * 0.5 + torch.linspace(-0.5, 0.5, 1024)

    def restorer(vae_tile: int) -> Restorer:
        options = pipeline.options(vae_tile=vae_tile)
        return Restorer(autoencoder=autoencoder, unet=pipeline.unet, adaptor=pipeline.adaptor, options=options)

    @torch.no_grad()
    def made(vae_tile: int) -> Tensor:
        given = pixels if way == "encode_degraded" else restorer(1024).encode_degraded(pixels)
        found: Tensor = getattr(restorer(vae_tile), way)(given)
        return found

    whole, tiled = made(1024), made(384)
    monkeypatch.setattr("supir.restoration.restorer.shared_group_statistics", lambda run, sample: run)
    own = made(384)
    assert 0 < (tiled - whole).square().mean() < share * (own - whole).square().mean()
