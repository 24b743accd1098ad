"""Settings as the retired ComfyUI nodes of SUPIR call them, as options; docs/coming-from.md says what differs.

Written from workflows that people have published, whose names and values these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supir.errors import OptionError
from supir.options.fields import OFF

NAMES = {
    "seed": "seed", "steps": "num_steps", "cfg_scale_start": "text_guidance_start", "cfg_scale_end": "text_guidance",
    "cfg_scale": "text_guidance", "control_scale_start": "control_scale_start", "control_scale_end": "control_scale",
    "control_scale": "control_scale", "EDM_s_churn": "s_churn", "s_churn": "s_churn", "s_noise": "s_noise",
    "DPMPP_eta": "eta", "restore_cfg": "restoration_guidance", "restoration_scale": "restoration_guidance",
    "scale_by": "scale", "captions": "prompt", "positive_prompt": "positive_prompt", "a_prompt": "positive_prompt",
    "negative_prompt": "negative_prompt", "n_prompt": "negative_prompt", "color_fix_type": "color_fix",
    "sampler": "solver", "diffusion_dtype": "dtype",
}  # fmt: skip
WORDS = {
    "sampler": {"RestoreEDMSampler": "edm_euler", "RestoreDPMPP2MSampler": "dpmpp_2m"},
    "color_fix_type": {"Wavelet": "wavelet", "AdaIn": "adain", "None": "none"},
    "diffusion_dtype": {"auto": "auto", "fp16": "float16", "bf16": "bfloat16", "fp32": "float32"},
}
TILED = "Tiled"
"""What the name of a sampler begins with that works in tiles."""
_LATENT = 8
"""Pixels of one of a latent, in which the first of those nodes said the decoder's tiles."""


def published_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """What those nodes were given, as values of ``RestoreOptions`` and ``NetworkOptions``.

    What has no place here, such as a way to resize, is left out; so is what the sampler there does not hear: churn for
    DPM++, eta for EDM, and the pull toward the input for the DPM++.

    Raises:
        OptionError: a word that those nodes are not known to offer.
    """
    found = {NAMES[name]: _word(name, value) for name, value in given.items() if name in NAMES}
    if found.get("restoration_guidance", 1) <= 0:
        found["restoration_guidance"] = OFF
    if "solver" in found:
        found.pop("eta" if found["solver"] == "edm_euler" else "s_churn", None)
        if found["solver"] != "edm_euler":
            found["restoration_guidance"] = OFF
    if given.get("use_tiled_vae"):
        for name, value in given.items():
            if name.startswith("encoder_tile_size"):
                found["vae_tile"] = value
            elif name.startswith("decoder_tile_size"):
                found["decoder_tile"] = value * _LATENT if name.endswith("latent") else value
    if str(given.get("sampler")).startswith(TILED) or given.get("use_tiled_sampling"):
        tile, stride = given["sampler_tile_size"], given["sampler_tile_stride"]
        found |= {"tile": tile, "tile_overlap": max(0, min(tile - stride, tile // 2))}
    return found


def _word(name: str, value: Any) -> Any:
    if name not in WORDS:
        return value
    known = WORDS[name]
    plain = str(value).removeprefix(TILED if name == "sampler" else "")
    if plain not in known:
        raise OptionError(f"{name} is {value!r}; of the retired nodes' words these are known: {', '.join(known)}")
    return known[plain]
