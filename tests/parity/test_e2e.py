"""The whole of the public code's sampling entry point, from pixels to colour-fixed pixels (reference section 8)."""

from __future__ import annotations

from typing import Any

import pytest
from reference_fixtures import ReferenceFixtures
from torch import Tensor

from parity.replayed_noise import ReplayedNoise
from supir.options import RestoreOptions, restore_options
from supir.pipeline import SupirPipeline
from supir.restoration.denoiser_network import Conditions

NAMES = ("e2e_default", "e2e_restore_adain_linear", "e2e_num_samples2", "e2e_lightning", "e2e_tiled")
LATENT_FACTOR = 8
TOLERANCE = 1e-3


def options_of(recorded: dict[str, Any]) -> RestoreOptions:
    """The recorded call in our words."""
    call, extra = recorded["call"], recorded["sampler_extra"]
    ours: dict[str, Any] = {
        "num_steps": call["num_steps"],
        "restoration_guidance": call["restoration_scale"] if call["restoration_scale"] > 0 else "off",
        "s_churn": float(call["s_churn"]),
        "s_noise": call["s_noise"],
        "text_guidance": call["cfg_scale"],
        "text_guidance_start": call["cfg_scale_start"] if call["use_linear_CFG"] else "off",
        "control_scale": call.get("control_scale", 1.0),
        "control_scale_start": call.get("control_scale_start", 0.0) if call.get("use_linear_control_scale") else "off",
        "color_fix": call["color_fix_type"].lower(),
    }
    if "DPMPP2M" in recorded["sampler"]:
        ours |= {"solver": "reference_dpmpp_2m", "eta": extra.get("eta", 1.0)}
    if "tile_size" in extra:
        ours["tile"] = extra["tile_size"] * LATENT_FACTOR
        ours["tile_overlap"] = (extra["tile_size"] - extra["tile_stride"]) * LATENT_FACTOR
    if recorded["tile_vae"]:
        encoder_tile, decoder_tile = recorded["tile_vae"]
        assert encoder_tile == decoder_tile * LATENT_FACTOR, "one option sets both"
        ours["vae_tile"] = encoder_tile
    return restore_options("reference", **ours)


def conditions_of(arrays: dict[str, Tensor], batch: int) -> Conditions:
    def repeated(name: str) -> Tensor:
        return arrays[name].expand(batch, *arrays[name].shape[1:])

    return Conditions(
        tokens=repeated("crossattn_c"),
        vector=repeated("vector_c"),
        negative_tokens=repeated("crossattn_uc"),
        negative_vector=repeated("vector_uc"),
    )


@pytest.mark.parametrize("name", NAMES)
def test_restoration_of_the_public_code(name: str, fixtures: ReferenceFixtures, tiny_models: dict[str, Any]) -> None:
    recorded, arrays = fixtures.json(name), fixtures.tensors(name)
    pipeline = SupirPipeline(**tiny_models, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None)
    batch = recorded["call"].get("num_samples", 1)
    pixels = (arrays["x_u8"].float() / 255 * 2 - 1).repeat(batch, 1, 1, 1)
    draws = [arrays[key] for key in sorted(arrays) if key.startswith("draw_")] + list(arrays.get("brownian", []))
    trajectory = []
    result = pipeline.restore_pixels(
        pixels,
        options_of(recorded),
        conditions=conditions_of(arrays, batch),
        noise=ReplayedNoise(draws),
        on_step=lambda step: trajectory.append(step.x),
    )

    def check(ours: Tensor, theirs: Tensor, what: str) -> None:
        error = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1))
        assert error < TOLERANCE, f"{what}: largest difference {error:.2e}"

    check(result.lq_latent, arrays["z_lq"], "LQ latent")
    if "x_stage1" in arrays:
        check(result.preview, arrays["x_stage1"], "preview")
    check(result.anchor, arrays["z_stage1"], "anchor")
    assert len(trajectory) == len(arrays["traj"])
    for index, (ours, theirs) in enumerate(zip(trajectory, arrays["traj"], strict=True)):
        check(ours, theirs, f"latent after step {index}")
    check(result.pixels, arrays["out"], "pixels")
