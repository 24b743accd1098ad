"""The thin autoencoder: shapes, exact tiles with its halo, round trip through a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from supir.models.thin_autoencoder import ThinAutoencoder
from supir.options import RestoreOptions
from tiny import tiny_pipeline


@pytest.fixture
def model() -> ThinAutoencoder:
    torch.manual_seed(0)
    made = ThinAutoencoder(
        latent_channels=4,
        encoder_widths=(8, 12),
        encoder_blocks=(1, 1),
        restorer_widths=(4, 6, 8),
        restorer_blocks=(1, 1, 1),
        decoder_widths=(8, 12),
        decoder_blocks=(1, 1),
    )
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


def test_shapes_and_the_two_encoders_differ(model: ThinAutoencoder) -> None:
    x = torch.rand(2, 3, 40, 64) * 2 - 1
    latent = model.encode(x).latent_dist.mode()
    assert latent.shape == (2, 4, 5, 8)
    assert model.decode(latent).sample.shape == x.shape
    assert not torch.allclose(latent, model.encode_degraded(x).latent_dist.mode())


@torch.no_grad()
@pytest.mark.parametrize(("method", "reach"), [("encode", "halo"), ("encode_degraded", "degraded_halo")])
def test_a_tile_with_the_halo_around_it_is_exact(model: ThinAutoencoder, method: str, reach: str) -> None:
    halo = getattr(model, reach)
    encode = getattr(model, method)
    x = torch.rand(1, 3, 2 * halo + 64, 2 * halo + 64) * 2 - 1
    left, right = 32, 40 + 2 * halo
    latent = encode(x).latent_dist.mode()
    part = encode(x[..., left:right, left:right]).latent_dist.mode()
    inner = slice((left + halo) // 8, (left + halo) // 8 + 1)
    torch.testing.assert_close(
        part[..., halo // 8 : halo // 8 + 1, halo // 8 : halo // 8 + 1], latent[..., inner, inner], rtol=1e-4, atol=1e-5
    )
    picture = model.decode(latent).sample
    piece = model.decode(latent[..., left // 8 : right // 8, left // 8 : right // 8]).sample
    core = slice(left + halo, right - halo)
    torch.testing.assert_close(
        piece[..., halo : halo + 8, halo : halo + 8], picture[..., core, core], rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize(("method", "reach"), [("encode", "halo"), ("encode_degraded", "degraded_halo")])
def test_nothing_beyond_the_halo_reaches_a_pixel(model: ThinAutoencoder, method: str, reach: str) -> None:
    halo = getattr(model, reach)
    encode, size = getattr(model, method), 4 * halo
    x = torch.zeros(1, 3, size, size)
    moved = x.clone()
    moved[..., : size // 2 - halo, :] = 1
    same = encode(x).latent_dist.mode()[..., size // 16 :, :]
    also = encode(moved).latent_dist.mode()[..., size // 16 :, :]
    torch.testing.assert_close(also, same, rtol=0, atol=0)


def test_the_folder_round_trip_is_exact(model: ThinAutoencoder, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = ThinAutoencoder.from_pretrained(tmp_path)
    assert again.halo == model.halo
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@torch.no_grad()
def test_the_restoring_network_begins_as_the_identity() -> None:
    """So that training starts from the degraded picture itself, and E_dr from the plain encoder."""
    fresh = ThinAutoencoder(latent_channels=4, restorer_widths=(4, 6), restorer_blocks=(1, 2))
    x = torch.rand(1, 3, 32, 48) * 2 - 1
    assert torch.equal(fresh.restorer(x), x)
    torch.nn.init.normal_(fresh.restorer.conv_out.weight)
    assert not torch.equal(fresh.restorer(x), x)


def test_a_pipeline_mixes_the_two_ends_as_its_options_say() -> None:
    torch.manual_seed(0)
    coder = ThinAutoencoder(
        4, (4, 8), (1, 1), decoder_widths=(4, 8), decoder_blocks=(1, 1), dense_blocks=1, plain_end=True
    )
    assert coder.has_detail
    pipeline = tiny_pipeline(autoencoder=coder.eval().requires_grad_(False))
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1

    def preview(**chosen: float) -> Tensor:
        return pipeline.preview_pixels(pixels, RestoreOptions.silent(min_size=64, scale=4.0, **chosen))

    plain, between, vivid = preview(detail=0.0), preview(detail=0.5), preview(detail=1.0)
    assert torch.equal(preview(), vivid), "without a word the vivid end"
    for detail, found in ((0.0, plain), (0.5, between), (1.0, vivid)):
        expected = coder.decode(coder.encode_degraded(pixels, detail).latent_dist.mode()).sample
        torch.testing.assert_close(found, expected)
    assert (plain - vivid).abs().max() > 1e-3
    assert not ThinAutoencoder(4, dense_blocks=1).has_detail
