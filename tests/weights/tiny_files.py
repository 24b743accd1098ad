"""The tiny pipeline's weights as people have them: two files, a folder of diffusers, files of one part."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from supir.weights.layout import ADAPTOR, AUTOENCODER, CONNECTORS, DEGRADED_ENCODER, HeadDims
from tiny import TRUNK, tiny_components
from weights.originals import numbering_of, original_weights

HEAD_DIMS = HeadDims(unet=16, text_encoder=10, text_encoder_2=14)
NETWORKS = ("autoencoder", "unet", "adaptor", "text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
SUPIR_PREFIXES = (ADAPTOR, CONNECTORS, DEGRADED_ENCODER)


def networks() -> dict[str, Any]:
    """The tiny networks by component."""
    return {name: tiny_components()[name] for name in NETWORKS}


@functools.cache
def _weights() -> dict[str, Tensor]:
    return original_weights(networks(), numbering_of(networks()))


def sdxl_weights() -> dict[str, Tensor]:
    """The SDXL part under original names."""
    return {key: tensor for key, tensor in _weights().items() if not key.startswith(SUPIR_PREFIXES)}


def supir_weights() -> dict[str, Tensor]:
    """What SUPIR adds under original names."""
    return {key: tensor for key, tensor in _weights().items() if key.startswith(SUPIR_PREFIXES)}


def saved(tensors: dict[str, Tensor], path: Path) -> Path:
    """The tensors as a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def tiny_lora(path: Path, seed: int = 0, text_width: int = TRUNK["cross_attention_dim"]) -> Path:
    """One of the tiny UNet in kohya's layout, of attentions in the middle."""
    generator = torch.Generator().manual_seed(seed)
    blocks = "lora_unet_mid_block_attentions_0_transformer_blocks_0_"
    file = {}
    for layer, given in (("attn1_to_q", 64), ("attn2_to_k", text_width)):
        file[f"{blocks}{layer}.lora_down.weight"] = torch.randn(4, given, generator=generator)
        file[f"{blocks}{layer}.lora_up.weight"] = torch.randn(64, 4, generator=generator)
    return saved(file, path)


def without(tensors: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """The tensors whose keys begin with none of these."""
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(prefixes)}


def stripped(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those that begin with a prefix, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def autoencoder_file(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """An autoencoder alone, as sdxl_vae.safetensors has it."""
    return without(stripped(tensors, AUTOENCODER), "denoise_encoder.")


@functools.cache
def hub_modules() -> dict[str, Any]:
    """SDXL's components as diffusers' own classes, with the tiny weights; do not change them."""
    parts = networks()
    own = ("connector", "control", "prediction_type")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            {name: value for name, value in parts["unet"].config.items() if not name.startswith(own)}
        )
        autoencoder = AutoencoderKL.from_config(dict(parts["autoencoder"].config))
    unet.load_state_dict(without(parts["unet"].state_dict(), "connectors."), assign=True)
    autoencoder.load_state_dict(without(parts["autoencoder"].state_dict(), "degraded_encoder."), assign=True)
    return {"unet": unet, "vae": autoencoder} | {name: parts[name] for name in ("text_encoder", "text_encoder_2")}


def save_hub_folder(folder: Path, *, prediction_type: str = "epsilon", **how: Any) -> Path:
    """SDXL as the hub has it; ``how`` goes to ``save_pretrained``: ``variant``, ``max_shard_size``."""
    for name, module in hub_modules().items():
        module.save_pretrained(folder / name, **how)
    for name in TOKENIZERS:
        tiny_components()[name].save_pretrained(folder / name)
    EulerDiscreteScheduler(prediction_type=prediction_type).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    return folder


def same_weights(found: dict[str, Any]) -> bool:
    """Whether the networks that were found have the tiny weights, each of them."""
    pairs = [(found[name].state_dict(), network.state_dict()) for name, network in networks().items() if name in found]
    return bool(pairs) and all(torch.equal(mine[key], tensor) for mine, its in pairs for key, tensor in its.items())
