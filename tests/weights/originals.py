"""Models of ours back under original names, by the key map's way back; written apart from the code that it checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from supir.weights.keymap import KeyMap
from supir.weights.layout import Numbering, TrunkNumbering


def trunk_numbering(config: Any) -> TrunkNumbering:
    """Of our UNet or adaptor."""
    return TrunkNumbering(config.layers_per_block, tuple(kind.startswith("Cross") for kind in config.down_block_types))


def numbering_of(models: Mapping[str, Any]) -> Numbering:
    """Of all five models."""
    unet, autoencoder = models["unet"].config, models["autoencoder"].config
    num_levels = len(unet.block_out_channels)
    num_connectors = 1 + num_levels * (unet.layers_per_block + 1) + num_levels - 1
    # Counted from the middle block outwards: after each level's ZeroSFTs its cross attention, but for the last level.
    attentions = {num_connectors - 1 - (level + 1) * (unet.layers_per_block + 2) for level in range(num_levels - 1)}
    return Numbering(
        unet=trunk_numbering(unet),
        adaptor=trunk_numbering(models["adaptor"].config),
        connectors=tuple(index in attentions for index in range(num_connectors)),
        autoencoder=(len(autoencoder.block_out_channels), autoencoder.layers_per_block),
        text_layers=models["text_encoder_2"].config.num_hidden_layers,
    )


def original_weights(models: Mapping[str, nn.Module], numbering: Numbering) -> dict[str, Tensor]:
    """The parameters of our models, named and shaped as in the original files."""
    key_map = KeyMap(numbering)
    weights: dict[str, Tensor] = {}
    for component, model in models.items():
        for name, tensor in model.state_dict().items():
            named = name if key_map.original(component, name) else f"text_model.{name}"
            key = key_map.original(component, named)
            assert key is not None, f"{component}.{name}"
            if ".in_proj_" in key:  # written in the order query, key, value
                fused = [
                    model.state_dict()[name.replace(_which(name), which)] for which in ("q_proj", "k_proj", "v_proj")
                ]
                tensor = torch.cat(fused)
            elif ".mid.attn_1." in key and tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
            elif key.endswith("text_projection"):
                tensor = tensor.t().contiguous()
            weights[key] = tensor
    return weights


def _which(name: str) -> str:
    return next(which for which in ("q_proj", "k_proj", "v_proj") if which in name)
