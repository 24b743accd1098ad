"""What a set of original keys and shapes says about the model that wrote it: widths, depths, and so our configurations.

Original keys are those of the SDXL single file and of the published SUPIR files (reference section 3). Nothing here
reads a tensor. The size of an attention head is the one thing that shapes do not tell; SDXL's is 64 everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from supir.errors import KeyMismatchError

Shapes = Mapping[str, tuple[int, ...]]

UNET = "model.diffusion_model."
CONNECTORS = UNET + "project_modules."
ADAPTOR = "model.control_model."
AUTOENCODER = "first_stage_model."
DEGRADED_ENCODER = AUTOENCODER + "denoise_encoder."
CLIP_L = "conditioner.embedders.0.transformer.text_model."
CLIP_G = "conditioner.embedders.1.model."

NUM_SIZES = 6
SIZE_EMBED_DIM = 256

COMPONENTS = ("autoencoder", "unet", "adaptor", "text_encoder", "text_encoder_2")
"""The components that hold weights, named as the folders of a model."""


@dataclass(frozen=True, kw_only=True)
class HeadDims:
    """Channels of one attention head, per kind of attention; SDXL's when made without arguments."""

    unet: int = 64
    connectors: int = 64
    text_encoder: int = 64
    text_encoder_2: int = 64


@dataclass(frozen=True, kw_only=True)
class TrunkLayout:
    """A UNet, or only its encoder and middle: `depths` has the transformer blocks of each level, 0 for none."""

    block_out_channels: tuple[int, ...]
    layers_per_block: int
    depths: tuple[int, ...]
    in_channels: int
    context_channels: int
    vector_channels: int


@dataclass(frozen=True, kw_only=True)
class AutoencoderLayout:
    """Widths from the pixels inwards; `layers_per_block` is the encoder's, the decoder has one more."""

    block_out_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int


@dataclass(frozen=True, kw_only=True)
class TextLayout:
    """One text tower."""

    width: int
    num_layers: int
    hidden_width: int
    vocabulary: int
    num_positions: int
    projection: int


@dataclass(frozen=True, kw_only=True)
class TextKeys:
    """The keys that tell the size of a text tower; `hidden` is below the first layer."""

    tokens: str
    positions: str
    layers: str
    hidden: str
    projection: str | None


CLIP_L_KEYS = TextKeys(
    tokens=CLIP_L + "embeddings.token_embedding.weight",
    positions=CLIP_L + "embeddings.position_embedding.weight",
    layers=CLIP_L + "encoder.layers.",
    hidden="0.mlp.fc1.weight",
    projection=None,
)
CLIP_G_KEYS = TextKeys(
    tokens=CLIP_G + "token_embedding.weight",
    positions=CLIP_G + "positional_embedding",
    layers=CLIP_G + "transformer.resblocks.",
    hidden="0.mlp.c_fc.weight",
    projection=CLIP_G + "text_projection",
)


@dataclass(frozen=True, kw_only=True)
class ConnectorLayout:
    """`cross_attentions` are the positions of the cross attentions among the connectors; the others are ZeroSFT."""

    num_connectors: int
    cross_attentions: frozenset[int]
    hidden_channels: int


@dataclass(frozen=True, kw_only=True)
class ModelLayout:
    """All of it; a part that the keys do not have is None."""

    unet: TrunkLayout | None = None
    adaptor: TrunkLayout | None = None
    connectors: ConnectorLayout | None = None
    autoencoder: AutoencoderLayout | None = None
    text_encoder: TextLayout | None = None
    text_encoder_2: TextLayout | None = None
    hint_channels: int = 4
    head_dims: HeadDims = field(default_factory=HeadDims)


def read_layout(shapes: Shapes, head_dims: HeadDims | None = None) -> ModelLayout:
    """The layout that original keys and shapes describe.

    Raises:
        KeyMismatchError: a part is begun but lacks the keys its size is read from.
    """
    try:
        hint = shapes.get(ADAPTOR + "input_hint_block.0.weight")
        return ModelLayout(
            unet=_trunk(shapes, UNET) if _has(shapes, UNET + "input_blocks.") else None,
            adaptor=_trunk(shapes, ADAPTOR) if _has(shapes, ADAPTOR) else None,
            connectors=_connectors(shapes) if _has(shapes, CONNECTORS) else None,
            autoencoder=_autoencoder(shapes) if _has(shapes, AUTOENCODER + "encoder.") else None,
            text_encoder=_text(shapes, CLIP_L_KEYS) if _has(shapes, CLIP_L) else None,
            text_encoder_2=_text(shapes, CLIP_G_KEYS) if _has(shapes, CLIP_G) else None,
            hint_channels=hint[1] if hint else 4,
            head_dims=head_dims or HeadDims(),
        )
    except (KeyError, IndexError) as error:
        raise KeyMismatchError(
            f"these are not the weights of an SDXL model: its size is read from {error}, which is missing or"
            " mis-shaped. Give the SDXL single file (2515 tensors) and the published SUPIR file."
        ) from error


def _has(shapes: Shapes, prefix: str) -> bool:
    return any(key.startswith(prefix) for key in shapes)


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered children `prefix` has: one more than the largest number."""
    numbers = [int(match[1]) for key in shapes if (match := re.match(re.escape(prefix) + r"(\d+)\.", key))]
    return max(numbers, default=-1) + 1


def _trunk(shapes: Shapes, prefix: str) -> TrunkLayout:
    num_blocks = _count(shapes, prefix + "input_blocks.")
    downs = [index for index in range(num_blocks) if f"{prefix}input_blocks.{index}.0.op.weight" in shapes]
    num_levels = len(downs) + 1
    layers = num_blocks // num_levels - 1
    firsts = [level * (layers + 1) + 1 for level in range(num_levels)]
    depths = tuple(_count(shapes, f"{prefix}input_blocks.{first}.1.transformer_blocks.") for first in firsts)
    attention = f"{prefix}middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    return TrunkLayout(
        block_out_channels=tuple(shapes[f"{prefix}input_blocks.{first}.0.out_layers.3.weight"][0] for first in firsts),
        layers_per_block=layers,
        depths=depths,
        in_channels=shapes[f"{prefix}input_blocks.0.0.weight"][1],
        context_channels=shapes[attention][1],
        vector_channels=shapes[f"{prefix}label_emb.0.0.weight"][1],
    )


def _connectors(shapes: Shapes) -> ConnectorLayout:
    count = _count(shapes, CONNECTORS)
    attentions = frozenset(index for index in range(count) if f"{CONNECTORS}{index}.attn.to_q.weight" in shapes)
    return ConnectorLayout(
        num_connectors=count,
        cross_attentions=attentions,
        hidden_channels=shapes[f"{CONNECTORS}{count - 1}.mlp_shared.0.weight"][0],
    )


def _autoencoder(shapes: Shapes) -> AutoencoderLayout:
    prefix = AUTOENCODER + "encoder."
    num_levels = _count(shapes, prefix + "down.")
    return AutoencoderLayout(
        block_out_channels=tuple(shapes[f"{prefix}down.{i}.block.0.conv2.weight"][0] for i in range(num_levels)),
        layers_per_block=_count(shapes, prefix + "down.0.block."),
        latent_channels=shapes[prefix + "conv_out.weight"][0] // 2,
    )


def _text(shapes: Shapes, keys: TextKeys) -> TextLayout:
    vocabulary, width = shapes[keys.tokens]
    return TextLayout(
        width=width,
        num_layers=_count(shapes, keys.layers),
        hidden_width=shapes[keys.layers + keys.hidden][0],
        vocabulary=vocabulary,
        num_positions=shapes[keys.positions][0],
        projection=shapes[keys.projection][1] if keys.projection else width,
    )


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
    if layout.connectors is not None:
        config["connector_hidden_channels"] = layout.connectors.hidden_channels
    return config


def adaptor_config(layout: ModelLayout) -> dict[str, Any]:
    """Arguments of `SupirAdaptor`."""
    adaptor = _present(layout.adaptor, "adaptor", ADAPTOR)
    return trunk_config(adaptor, layout) | {"hint_channels": layout.hint_channels}


def autoencoder_config(layout: ModelLayout) -> dict[str, Any]:
    """Arguments of `SupirAutoencoder`; the scaling factor stays SDXL's."""
    autoencoder = _present(layout.autoencoder, "autoencoder", AUTOENCODER)
    num_levels = len(autoencoder.block_out_channels)
    return {
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
        raise KeyMismatchError(
            f"the files given hold no {name}: not one key begins with {prefix!r}. The SDXL single file has the UNet,"
            " autoencoder and text towers; the published SUPIR file has the adaptor, connectors and degraded encoder."
        )
    return part
