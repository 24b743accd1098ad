"""Group norms that agree across tiles: nearer to the untiled result, and the network is as it was afterwards."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from supir.models.norms import common_norms, normalised, statistics
from supir.restoration import Restorer
from supir.tiling import mosaic
from test_pipeline import picture
from tiny import randomised, tiny_pipeline


def test_its_own_statistics_make_no_difference() -> None:
    norm = randomised(nn.GroupNorm(4, 8), 0)
    x = torch.randn(2, 8, 5, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(normalised(norm, statistics(x, 4), x), norm(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(normalised(norm, statistics(x, 4), x[..., 1:3]), norm(x)[..., 1:3], atol=1e-5, rtol=0)


def test_afterwards_the_network_is_as_it_was() -> None:
    network = randomised(nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)), 0)
    x, other = torch.randn(2, 1, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    before = network(x)
    with common_norms(network, lambda: network(other)):
        assert not torch.allclose(network(x), before)
    assert torch.equal(network(x), before)
    assert not any(module._forward_pre_hooks for module in network)


def test_a_mosaic_is_cut_from_everywhere() -> None:
    x = torch.arange(40.0 * 56).reshape(1, 1, 40, 56)
    found = mosaic(x, 16, align=2)
    assert found.shape == (1, 1, 16, 16)
    assert found[0, 0, 0, 0] == 0
    assert found[0, 0, -1, -1] == x[0, 0, -1, -1]
    assert mosaic(x, 48).shape == (1, 1, 40, 48)
    assert torch.equal(mosaic(x, 64), x)


@pytest.mark.parametrize(("way", "share"), [("encode_degraded", 0.5), ("decode", 0.85)])
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
    monkeypatch.setattr("supir.restoration.common_norms", lambda network, sample: nullcontext())
    own = made(384)
    assert 0 < (tiled - whole).square().mean() < share * (own - whole).square().mean()
