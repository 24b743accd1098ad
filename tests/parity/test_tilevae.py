"""The public code's tiled autoencoder against its untiled one, with the tiny network (reference section 10)."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from reference_fixtures import ReferenceFixtures
from torch import Tensor

from supir.models.autoencoder import SupirAutoencoder, decode_in_lock_step, encode_in_lock_step

TOLERANCE = 1e-4


@pytest.mark.parametrize("part", ["enc", "denoise_enc", "dec"])
def test_tiled_and_untiled(fixtures: ReferenceFixtures, tiny_autoencoder: SupirAutoencoder, part: str) -> None:
    recorded, arrays = fixtures.json("tilevae"), fixtures.tensors("tilevae")
    encoder_tile, decoder_tile = recorded["encoder_tile_size"], recorded["decoder_tile_size"]
    encode: Callable[..., Tensor] = encode_in_lock_step
    module, run, given, tile = {
        "enc": (tiny_autoencoder.encoder, encode, arrays["x"], encoder_tile),
        "denoise_enc": (tiny_autoencoder.degraded_encoder, encode, arrays["x"], encoder_tile),
        "dec": (tiny_autoencoder.decoder, decode_in_lock_step, arrays["z"], decoder_tile),
    }[part]
    with torch.no_grad():
        in_tiles, untiled = run(module, given, tile), run(module, given, 10_000)
    torch.testing.assert_close(in_tiles, arrays[f"{part}.tiled"], rtol=0, atol=TOLERANCE)
    expected = arrays[f"{part}.untiled"]
    every = math.ceil(untiled.shape[-1] / expected.shape[-1])
    torch.testing.assert_close(untiled[..., ::every, ::every], expected, rtol=0, atol=TOLERANCE)
    # The difference that the public code makes by construction, so that tiling did happen here.
    difference = float((in_tiles - untiled).abs().max())
    if f"{part}_max_abs_diff_tiled_vs_untiled" in recorded:
        assert difference == pytest.approx(recorded[f"{part}_max_abs_diff_tiled_vs_untiled"], abs=2 * TOLERANCE)
