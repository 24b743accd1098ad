"""The arguments of our classes, and of transformers', for the model that a layout describes."""

from __future__ import annotations

from typing import Any

from supir.errors import KeyMismatchError
from supir.weights.layout import ADAPTOR, AUTOENCODER, CLIP_G, CLIP_L, UNET, ModelLayout, TextLayout, TrunkLayout

NUM_SIZES = 6
SIZE_EMBED_DIM = 256


def trunk_config(trunk: TrunkLayout, layout: ModelLayout) -> dict[str, Any]:
    """What UNet and adaptor share, in diffusers' words (`attention_head_dim` counts heads there)."""
    head_dim = layout.head_dims.unet
    kinds = tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in trunk.depths)
    return {
        "in_channels": trunk.in_channels,
        "block_out_channels": trunk.block_out_channels,
        "down_block_types": kinds,
        "layers_per_block": trunk.layers_per_block,
        "transformer_layers_per_block": tuple(depth or 1 for depth in trunk.depths),
        "attention_head_dim": tuple(max(width // head_dim, 1) for width in trunk.block_out_channels),
        "cross_attention_dim": trunk.context_channels,
        "projection_class_embeddings_input_dim": trunk.vector_channels,
        "addition_time_embed_dim": _size_embed_dim(trunk, layout.text_encoder_2),
    }


def _size_embed_dim(trunk: TrunkLayout, text: TextLayout | None) -> int:
    """The vector is the pooled text feature and six embedded sizes: so the width of one is known with both."""
    rest = trunk.vector_channels - text.projection if text is not None else 0
    return rest // NUM_SIZES if rest > 0 and rest % NUM_SIZES == 0 else SIZE_EMBED_DIM


def unet_config(layout: ModelLayout) -> dict[str, Any]:
    """Arguments of `SupirUNet`."""
    unet = _present(layout.unet, "UNet", UNET)
    config = trunk_config(unet, layout)
    config["up_block_types"] = tuple(kind.replace("Down", "Up") for kind in reversed(config["down_block_types"]))
    config["out_channels"] = unet.in_channels
    config["connector_head_dim"] = layout.head_dims.connectors
    config["prediction_type"] = layout.traits.prediction_type or "epsilon"
    if layout.connectors is not None:
        config["connector_hidden_channels"] = layout.connectors.hidden_channels
    return config


def adaptor_config(layout: ModelLayout) -> dict[str, Any]:
    """Arguments of `SupirAdaptor`."""
    adaptor = _present(layout.adaptor, "adaptor", ADAPTOR)
    return trunk_config(adaptor, layout) | {"hint_channels": layout.hint_channels}


def autoencoder_config(layout: ModelLayout) -> dict[str, Any]:
    """Arguments of `SupirAutoencoder`; SDXL's scaling and ``force_upcast`` where no configuration says others."""
    autoencoder = _present(layout.autoencoder, "autoencoder", AUTOENCODER)
    num_levels = len(autoencoder.block_out_channels)
    said = {name: getattr(layout.traits, name) for name in ("scaling_factor", "force_upcast")}
    return {name: value for name, value in said.items() if value is not None} | {
        "block_out_channels": autoencoder.block_out_channels,
        "layers_per_block": autoencoder.layers_per_block,
        "latent_channels": autoencoder.latent_channels,
        "down_block_types": ("DownEncoderBlock2D",) * num_levels,
        "up_block_types": ("UpDecoderBlock2D",) * num_levels,
    }


def text_config(layout: ModelLayout, component: str) -> dict[str, Any]:
    """Arguments of transformers' `CLIPTextConfig` for `text_encoder` or `text_encoder_2`."""
    first = component == "text_encoder"
    text = _present(layout.text_encoder if first else layout.text_encoder_2, component, CLIP_L if first else CLIP_G)
    head_dim = layout.head_dims.text_encoder if first else layout.head_dims.text_encoder_2
    return {
        "hidden_size": text.width,
        "intermediate_size": text.hidden_width,
        "num_hidden_layers": text.num_layers,
        "num_attention_heads": text.width // head_dim,
        "vocab_size": text.vocabulary,
        "max_position_embeddings": text.num_positions,
        "projection_dim": text.projection,
        "hidden_act": "quick_gelu" if first else "gelu",
        # As in SDXL's published configurations; with 2, transformers pools at the largest token id, as open_clip does.
        "eos_token_id": 2,
        "bos_token_id": 0,
        "pad_token_id": 1,
    }


def _present(part: Any, name: str, prefix: str) -> Any:
    if part is None:
        raise KeyMismatchError(f"the files given hold no {name}: not one key begins with {prefix!r}")
    return part
