"""Settings of the retired ComfyUI nodes as options."""

from __future__ import annotations

from typing import Any

import pytest

from supir.errors import OptionError
from supir.options import restore_options
from supir.options.published import published_options

SAMPLER = {
    "seed": 5, "steps": 45, "cfg_scale_start": 4.0, "cfg_scale_end": 4.0, "EDM_s_churn": 5, "s_noise": 1.003,
    "DPMPP_eta": 1.0, "control_scale_start": 1.0, "control_scale_end": 0.9, "restore_cfg": 4.0,
    "keep_model_loaded": False, "sampler": "RestoreEDMSampler", "sampler_tile_size": 1024, "sampler_tile_stride": 512,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {"solver": "edm_euler", "s_churn": 5, "restoration_guidance": 4.0}),
        ({"restore_cfg": -1.0}, {"solver": "edm_euler", "s_churn": 5, "restoration_guidance": "off"}),
        ({"sampler": "RestoreDPMPP2MSampler"}, {"solver": "dpmpp_2m", "eta": 1.0, "restoration_guidance": "off"}),
        (
            {"sampler": "TiledRestoreEDMSampler"},
            {"solver": "edm_euler", "s_churn": 5, "restoration_guidance": 4.0, "tile": 1024, "tile_overlap": 512},
        ),
        (
            {"sampler": "TiledRestoreEDMSampler", "sampler_tile_stride": 256},  # more than half is not to be had here
            {"solver": "edm_euler", "s_churn": 5, "restoration_guidance": 4.0, "tile": 1024, "tile_overlap": 512},
        ),
    ],
)
def test_the_samplers_settings(changed: dict[str, Any], expected: dict[str, Any]) -> None:
    common = {
        "seed": 5, "num_steps": 45, "text_guidance_start": 4.0, "text_guidance": 4.0, "s_noise": 1.003,
        "control_scale_start": 1.0, "control_scale": 0.9,
    }  # fmt: skip
    found = published_options(SAMPLER | changed)
    assert found == common | expected
    restore_options(**found)


def test_tiles_of_the_autoencoder_in_pixels() -> None:
    tiles = {"encoder_tile_size": 512, "decoder_tile_size": 768, "encoder_dtype": "auto"}
    assert published_options({"use_tiled_vae": True, **tiles}) == {"vae_tile": 512, "decoder_tile": 768}
    assert published_options({"use_tiled_vae": False, **tiles}) == {}
    first = {"use_tiled_vae": True, "encoder_tile_size_pixels": 512, "decoder_tile_size_latent": 64}
    assert published_options(first) == {"vae_tile": 512, "decoder_tile": 512}


def test_words_and_what_is_not_known() -> None:
    given = {
        "color_fix_type": "AdaIn",
        "diffusion_dtype": "bf16",
        "a_prompt": "crisp",
        "n_prompt": "soft",
        "scale_by": 2.0,
    }
    assert published_options(given) == {
        "color_fix": "adain", "dtype": "bfloat16", "positive_prompt": "crisp", "negative_prompt": "soft", "scale": 2.0,
    }  # fmt: skip
    with pytest.raises(OptionError, match=r"diffusion_dtype is 'fp4'; .* known: auto, fp16, bf16, fp32"):
        published_options({"diffusion_dtype": "fp4"})
