"""LoRA on adaptor and connectors: one's own domain on one small GPU. Samples and loss are those of the adaptor stage.

The adapter is one safetensors file with keys ``adaptor.*`` and ``unet.connectors.*`` as peft names them; a pipeline
loads it as any LoRA. A run also writes the whole model with the adapter merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from supir.errors import MissingExtraError
from supir.training.denoising import Denoising, make_draw
from supir.training.loop import Stage
from supir.training.recipes import StageOptions
from supir.training.stage_context import StageContext
from supir.training.stages.adaptor import restored

ADAPTER = "lora.safetensors"
_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_CONNECTORS = r"connectors\.\d+\.(zero_conv|zero_mul|zero_add|mlp_shared\.0|to_q|to_k|to_v|to_out)"


def lora_stage(materials: StageContext) -> Stage:
    """The stage: only the LoRA layers learn."""
    networks, options = materials.networks, materials.options
    learning = add_layers(networks, options)
    denoising = Denoising(materials, controlled=True)
    return Stage(
        "lora",
        learning,
        denoising.loss,
        materials.sheet(lambda: restored(denoising), denoising.heldout_loss),
        frozen=lambda name: "lora_" not in name,
        draw=make_draw(materials),
        batch=options.batch,
    )


def add_layers(networks: dict[str, Any], options: StageOptions) -> dict[str, nn.Module]:
    """Put LoRA layers into what the options name, in place; returns the components that have some.

    Raises:
        MissingExtraError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise MissingExtraError("peft", "train", "the lora stage") from None
    places: dict[str, Any] = {"adaptor": _ATTENTION, "unet": _CONNECTORS}
    wanted = {"adaptor": ("adaptor",), "connectors": ("unet",), "both": ("adaptor", "unet")}[options.lora_target]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        for name in wanted:
            rank = options.lora_rank
            config = LoraConfig(r=rank, lora_alpha=rank, target_modules=places[name], init_lora_weights="gaussian")
            networks[name].add_adapter(config)
    return {name: networks[name] for name in wanted}


def save_adapter(learning: dict[str, nn.Module], path: Path) -> None:
    """Write the LoRA layers of components to one file."""
    from peft import get_peft_model_state_dict

    tensors: dict[str, Tensor] = {}
    for component, module in learning.items():
        for name, tensor in get_peft_model_state_dict(module, adapter_name="default").items():
            tensors[f"{component}.{name}"] = tensor.detach().float().cpu().contiguous()
    save_file(tensors, path, metadata={"format": "pt", "software": "supir"})


def merge(learning: Mapping[str, Any]) -> None:
    """Add the LoRA layers of components to their weights, in place, and take the layers away."""
    for module in learning.values():
        module.fuse_lora()
        module.unload_lora()
