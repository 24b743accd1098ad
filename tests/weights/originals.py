"""Models of ours back under original names, by the key map's way back; written apart from the code that it checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from supir.weights.keymap import KeyMap
from supir.weights.layout import AutoencoderLayout, ConnectorLayout, HeadDims, ModelLayout, TextLayout, TrunkLayout


def trunk_layout(config: Any) -> TrunkLayout:
    """Of our UNet or adaptor."""
    depths = zip(config.down_block_types, config.transformer_layers_per_block, strict=True)
    return TrunkLayout(
        block_out_channels=tuple(config.block_out_channels),
        layers_per_block=config.layers_per_block,
        depths=tuple(depth if kind.startswith("CrossAttn") else 0 for kind, depth in depths),
        in_channels=config.in_channels,
        context_channels=config.cross_attention_dim,
        vector_channels=config.projection_class_embeddings_input_dim,
    )


def text_layout(config: Any, projection: int) -> TextLayout:
    """Of a CLIP text tower."""
    return TextLayout(
        width=config.hidden_size,
        num_layers=config.num_hidden_layers,
        hidden_width=config.intermediate_size,
        vocabulary=config.vocab_size,
        num_positions=config.max_position_embeddings,
        projection=projection,
    )


def layout_of(models: Mapping[str, Any], head_dims: HeadDims) -> ModelLayout:
    """Of all five models."""
    unet, autoencoder = models["unet"].config, models["autoencoder"].config
    num_levels = len(unet.block_out_channels)
    num_connectors = 1 + num_levels * (unet.layers_per_block + 1) + num_levels - 1
    # Counted from the middle block outwards: after each level's ZeroSFTs its cross attention, but for the last level.
    attentions = {num_connectors - 1 - (level + 1) * (unet.layers_per_block + 2) for level in range(num_levels - 1)}
    first, second = models["text_encoder"].config, models["text_encoder_2"].config
    return ModelLayout(
        unet=trunk_layout(unet),
        adaptor=trunk_layout(models["adaptor"].config),
        connectors=ConnectorLayout(
            num_connectors=num_connectors,
            cross_attentions=frozenset(attentions),
            hidden_channels=unet.connector_hidden_channels,
        ),
        autoencoder=AutoencoderLayout(
            block_out_channels=tuple(autoencoder.block_out_channels),
            layers_per_block=autoencoder.layers_per_block,
            latent_channels=autoencoder.latent_channels,
        ),
        text_encoder=text_layout(first, first.hidden_size),
        text_encoder_2=text_layout(second, second.projection_dim),
        head_dims=head_dims,
    )


def original_weights(models: Mapping[str, nn.Module], layout: ModelLayout) -> dict[str, Tensor]:
    """The parameters of our models, named and shaped as in the original files."""
    key_map = KeyMap(layout)
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
