"""Both encoders and the decoder, and the four entry points of the reference built on them."""

from __future__ import annotations

import copy

import pytest
import torch

from parity.reference_fixtures import ReferenceFixtures
from parity.tolerances import assert_near
from supir.models.autoencoder import SupirAutoencoder

TOLERANCES = {"f32": 1e-4, "f64": 1e-10}


@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_moments_and_decoding(fixtures: ReferenceFixtures, tiny_autoencoder: SupirAutoencoder, precision: str) -> None:
    recorded = fixtures.tensors("vae")
    dtype = torch.float32 if precision == "f32" else torch.float64
    autoencoder = copy.deepcopy(tiny_autoencoder).to(dtype)
    pixels, latent = recorded["x"].to(dtype), recorded["z_in"].to(dtype)
    with torch.no_grad():
        found = {
            "enc_h": autoencoder.encoder(pixels),
            "enc_moments": autoencoder.encode(pixels).latent_dist.parameters,
            "denoise_enc_moments": autoencoder.encode_degraded(pixels).latent_dist.parameters,
            "dec": autoencoder.decode(latent).sample,
        }
    for name, tensor in found.items():
        assert_near(tensor, recorded[f"{name}.{precision}"], TOLERANCES[precision], name)


@torch.no_grad()
def test_entry_points(fixtures: ReferenceFixtures, tiny_autoencoder: SupirAutoencoder) -> None:
    recorded, autoencoder = fixtures.tensors("vae"), tiny_autoencoder
    factor = autoencoder.config.scaling_factor
    assert factor == fixtures.json("vae")["scale_factor"]
    clean = autoencoder.encode(recorded["x"]).latent_dist
    degraded = autoencoder.encode_degraded(recorded["x"]).latent_dist
    noise = recorded["encode_first_stage.noise"]
    degraded_noise = recorded["encode_first_stage_with_denoise.sample.noise"]
    found = {
        "encode_first_stage": factor * (clean.mean + clean.std * noise),
        "encode_first_stage_with_denoise.mode": factor * degraded.mode(),
        "encode_first_stage_with_denoise.sample": factor * (degraded.mean + degraded.std * degraded_noise),
        "decode_first_stage": autoencoder.decode(recorded["encode_first_stage_with_denoise.mode"] / factor).sample,
        "batchify_denoise": autoencoder.decode(degraded.mode()).sample,
    }
    for name, tensor in found.items():
        assert_near(tensor, recorded[name], TOLERANCES["f32"], name)
