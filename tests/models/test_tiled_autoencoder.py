"""The lock-step tiles of the public code beyond its recorded sizes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from supir.models.autoencoder import SupirAutoencoder, decode_in_lock_step, encode_in_lock_step, lock_step_extents
from supir.models.norms import normed_together


@pytest.fixture(scope="module")
def autoencoder() -> SupirAutoencoder:
    torch.manual_seed(0)
    return SupirAutoencoder(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4).eval()


@pytest.mark.parametrize("pad", [11, 32])
@pytest.mark.parametrize("tile", [8, 24, 64])
def test_yields_join_up_at_any_length(tile: int, pad: int) -> None:
    for length in range(1, 300):
        extents = lock_step_extents(length, tile, pad)
        assert extents[0].first == 0
        assert extents[-1].last == length
        for extent, after in pairwise(extents):
            assert extent.last == after.first
        for extent in extents:
            assert extent.start <= extent.first < extent.last <= extent.stop


@torch.no_grad()
def test_a_small_picture_is_not_tiled(autoencoder: SupirAutoencoder) -> None:
    pixels, latent = torch.randn(1, 3, 64, 96), torch.randn(1, 4, 8, 12)
    assert torch.equal(encode_in_lock_step(autoencoder.encoder, pixels, 64), autoencoder.encoder(pixels))
    assert torch.equal(decode_in_lock_step(autoencoder.decoder, latent, 8), autoencoder.decoder(latent))


@torch.no_grad()
@pytest.mark.parametrize("size", [(24, 160), (168, 136)])
def test_batches_and_narrow_pictures(autoencoder: SupirAutoencoder, size: tuple[int, int]) -> None:
    pixels = torch.randn(2, 3, *size)
    moments = encode_in_lock_step(autoencoder.encoder, pixels, 64)
    assert moments.shape == (2, 8, size[0] // 8, size[1] // 8)
    torch.testing.assert_close(moments[1:], encode_in_lock_step(autoencoder.encoder, pixels[1:], 64))
    latent = moments[:, :4]
    tall = torch.cat([latent, latent], dim=2)
    assert decode_in_lock_step(autoencoder.decoder, tall, 8).shape == (2, 3, 2 * size[0], size[1])


@torch.no_grad()
def test_shared_statistics_are_those_of_the_whole_when_the_tiles_are_alike() -> None:
    norm = nn.GroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    part = torch.randn(2, 8, 6, 5)
    whole = norm(torch.cat([part, part.flip(-1)], dim=-1))
    found = torch.cat(list(normed_together(norm, [part, part.flip(-1)])), dim=-1)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)
