"""What names and shapes say of a model: how they begin, what the numbers in them stand for, what its classes are given.

Keys are either original, those of the SDXL single file and of the published SUPIR files (reference section 3), or
those of a diffusers folder with the component before them. Nothing here reads a tensor. The size of an attention head
is the one thing that shapes do not tell; SDXL's is 64 everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

UNET = "model.diffusion_model."
CONNECTORS = UNET + "project_modules."
ADAPTOR = "model.control_model."
AUTOENCODER = "first_stage_model."
DEGRADED_ENCODER = AUTOENCODER + "denoise_encoder."
CLIP_L = "conditioner.embedders.0.transformer.text_model."
CLIP_G = "conditioner.embedders.1.model."

HUB_UNET, HUB_CONNECTORS, HUB_ADAPTOR = "unet.", "unet.connectors.", "adaptor."
HUB_AUTOENCODER, HUB_DEGRADED_ENCODER = "vae.", "vae.degraded_encoder."
HUB_CLIP_L, HUB_CLIP_G = "text_encoder.", "text_encoder_2."
"""Before the names that diffusers and transformers give, which are ours: what the component is called."""
COMPONENTS = ("autoencoder", "unet", "adaptor", "text_encoder", "text_encoder_2")
"""The components that hold weights, named as the folders of a model."""

PREFIXES = {
    "autoencoder": (AUTOENCODER, HUB_AUTOENCODER),
    "unet": (UNET, HUB_UNET),
    "adaptor": (ADAPTOR, HUB_ADAPTOR),
    "text_encoder": (CLIP_L, HUB_CLIP_L),
    "text_encoder_2": (CLIP_G, HUB_CLIP_G),
}
"""How the keys of each begin."""


@dataclass(frozen=True, kw_only=True)
class HeadDims:
    """Channels of one attention head, per kind of attention; SDXL's when made without arguments."""

    unet: int = 64
    connectors: int = 64
    text_encoder: int = 64
    text_encoder_2: int = 64


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a model is beside its shapes, told by markers and configurations; None where nobody says.

    Args:
        prediction_type: what the UNet predicts, ``epsilon`` or ``v_prediction``.
        scaling_factor: by which latents are multiplied; SDXL's is 0.13025.
        force_upcast: whether the autoencoder overflows in float16, as SDXL's does.
        zero_terminal_snr: trained down to no signal at all.
    """

    prediction_type: str | None = None
    scaling_factor: float | None = None
    force_upcast: bool | None = None
    zero_terminal_snr: bool = False


@dataclass(frozen=True)
class TrunkNumbering:
    """Of a UNet, or only its encoder and middle: blocks of a level, and which levels have transformers."""

    layers_per_block: int
    attends: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class Numbering:
    """How far the numbered blocks go under original names; nothing of a part that is not there under such names."""

    unet: TrunkNumbering = TrunkNumbering(0, ())
    adaptor: TrunkNumbering = TrunkNumbering(0, ())
    connectors: tuple[bool, ...] = ()
    """Of each whether it is a cross attention; the others are ZeroSFT."""
    autoencoder: tuple[int, int] = (0, 0)
    """Levels, and blocks of one in the encoder; the decoder has one more."""
    text_layers: int = 0
    """Of the second tower."""


def read_numbering(shapes: Shapes) -> Numbering:
    """The numbering of these original keys."""
    coders = (AUTOENCODER + "encoder.", DEGRADED_ENCODER)
    return Numbering(
        unet=_trunk(shapes, UNET),
        adaptor=_trunk(shapes, ADAPTOR),
        connectors=tuple(
            f"{CONNECTORS}{index}.attn.to_q.weight" in shapes for index in range(count(shapes, CONNECTORS))
        ),
        autoencoder=(
            max(count(shapes, prefix + "down.") for prefix in coders),
            max(count(shapes, prefix + "down.0.block.") for prefix in coders),
        ),
        text_layers=count(shapes, CLIP_G + "transformer.resblocks."),
    )


def count(shapes: Shapes, prefix: str) -> int:
    """How many numbered children `prefix` has: one more than the largest number."""
    numbers = [int(match[1]) for key in shapes if (match := re.match(re.escape(prefix) + r"(\d+)\.", key))]
    return max(numbers, default=-1) + 1


def _trunk(shapes: Shapes, prefix: str) -> TrunkNumbering:
    """Each level but the last ends in a downsampling, which has a number too."""
    prefix += "input_blocks."
    num_blocks = count(shapes, prefix)
    num_levels = 1 + sum(f"{prefix}{index}.0.op.weight" in shapes for index in range(num_blocks))
    layers = num_blocks // num_levels - 1
    firsts = [level * (layers + 1) + 1 for level in range(num_levels)] if layers > 0 else []
    return TrunkNumbering(
        max(layers, 0), tuple(count(shapes, f"{prefix}{first}.1.transformer_blocks.") > 0 for first in firsts)
    )


NUM_SIZES = 6
SIZE_EMBED_DIM = 256
_LAYERS = "text_model.encoder.layers."


def trunk_config(names: Shapes, head_dim: int, pooled: int | None) -> dict[str, Any]:
    """What UNet and adaptor share, in diffusers' words (`attention_head_dim` counts heads there).

    ``pooled`` is the width of the pooled text feature, which with six embedded sizes makes the vector; None: not known.
    """
    levels = range(count(names, "down_blocks."))
    widths = tuple(names[f"down_blocks.{level}.resnets.0.conv2.weight"][0] for level in levels)
    depths = [count(names, f"down_blocks.{level}.attentions.0.transformer_blocks.") for level in levels]
    vector = names["add_embedding.linear_1.weight"][1]
    rest = vector - pooled if pooled is not None else 0
    return {
        "in_channels": names["conv_in.weight"][1],
        "block_out_channels": widths,
        "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths),
        "layers_per_block": count(names, "down_blocks.0.resnets."),
        "transformer_layers_per_block": tuple(depth or 1 for depth in depths),
        "attention_head_dim": tuple(max(width // head_dim, 1) for width in widths),
        "cross_attention_dim": names["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"][1],
        "projection_class_embeddings_input_dim": vector,
        "addition_time_embed_dim": rest // NUM_SIZES if rest > 0 and rest % NUM_SIZES == 0 else SIZE_EMBED_DIM,
    }


def unet_config(names: Shapes, head_dims: HeadDims, pooled: int | None, traits: Traits) -> dict[str, Any]:
    """Arguments of `SupirUNet`."""
    config = trunk_config(names, head_dims.unet, pooled)
    config["up_block_types"] = tuple(kind.replace("Down", "Up") for kind in reversed(config["down_block_types"]))
    config["out_channels"] = config["in_channels"]
    config["connector_head_dim"] = head_dims.connectors
    config["prediction_type"] = traits.prediction_type or "epsilon"
    if num_connectors := count(names, "connectors."):
        config["connector_hidden_channels"] = names[f"connectors.{num_connectors - 1}.mlp_shared.0.weight"][0]
    return config


def adaptor_config(names: Shapes, head_dims: HeadDims, pooled: int | None) -> dict[str, Any]:
    """Arguments of `SupirAdaptor`, by its own names or, where it is to begin, by the UNet's."""
    hint_channels = names["hint_conv.weight"][1] if "hint_conv.weight" in names else 4
    return trunk_config(names, head_dims.unet, pooled) | {"hint_channels": hint_channels}


def autoencoder_config(names: Shapes, traits: Traits) -> dict[str, Any]:
    """Arguments of `SupirAutoencoder`; SDXL's scaling and ``force_upcast`` where no configuration says others."""
    levels = range(count(names, "encoder.down_blocks."))
    said = {name: getattr(traits, name) for name in ("scaling_factor", "force_upcast")}
    return {name: value for name, value in said.items() if value is not None} | {
        "block_out_channels": tuple(names[f"encoder.down_blocks.{i}.resnets.0.conv2.weight"][0] for i in levels),
        "layers_per_block": count(names, "encoder.down_blocks.0.resnets."),
        "latent_channels": names["encoder.conv_out.weight"][0] // 2,
        "down_block_types": ("DownEncoderBlock2D",) * len(levels),
        "up_block_types": ("UpDecoderBlock2D",) * len(levels),
    }


def text_config(names: Shapes, head_dim: int, *, first: bool) -> dict[str, Any]:
    """Arguments of transformers' `CLIPTextConfig`, for the first tower or the second."""
    vocabulary, width = names["text_model.embeddings.token_embedding.weight"]
    return {
        "hidden_size": width,
        "intermediate_size": names[f"{_LAYERS}0.mlp.fc1.weight"][0],
        "num_hidden_layers": count(names, _LAYERS),
        "num_attention_heads": width // head_dim,
        "vocab_size": vocabulary,
        "max_position_embeddings": names["text_model.embeddings.position_embedding.weight"][0],
        "projection_dim": width if first else pooled_width(names),
        "hidden_act": "quick_gelu" if first else "gelu",
        # As in SDXL's published configurations; with 2, transformers pools at the largest token id, as open_clip does.
        "eos_token_id": 2,
        "bos_token_id": 0,
        "pad_token_id": 1,
    }


def pooled_width(names: Shapes) -> int | None:
    """Of the second tower's pooled feature; None where it is not there."""
    return names["text_projection.weight"][0] if "text_projection.weight" in names else None
