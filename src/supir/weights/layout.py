"""What a set of keys and shapes says about the model that wrote it: widths and depths.

Keys are either original, those of the SDXL single file and of the published SUPIR files (reference section 3), or
those of a diffusers folder with the component before them. Nothing here reads a tensor. The size of an attention head
is the one thing that shapes do not tell; SDXL's is 64 everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from supir.errors import KeyMismatchError

Shapes = Mapping[str, tuple[int, ...]]
_Part = TypeVar("_Part")

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
    projection_axis: int = -1


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


def hub_text_keys(prefix: str, *, projects: bool) -> Sequence[TextKeys]:
    """Of a tower as transformers saves it: before version 5 and since."""
    return [
        TextKeys(
            tokens=f"{prefix}{inner}embeddings.token_embedding.weight",
            positions=f"{prefix}{inner}embeddings.position_embedding.weight",
            layers=f"{prefix}{inner}encoder.layers.",
            hidden="0.mlp.fc1.weight",
            projection=f"{prefix}text_projection.weight" if projects else None,
            projection_axis=0 if projects else -1,
        )
        for inner in ("text_model.", "")
    ]


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
    traits: Traits = field(default_factory=Traits)


def read_layout(shapes: Shapes, head_dims: HeadDims | None = None) -> ModelLayout:
    """The layout that keys and shapes describe; original keys first, then a diffusers folder's.

    Raises:
        KeyMismatchError: a part is begun but lacks the keys its size is read from.
    """
    hints = (ADAPTOR + "input_hint_block.0.weight", HUB_ADAPTOR + "hint_conv.weight")
    try:
        return ModelLayout(
            unet=_first(shapes, (UNET, "input_blocks.", _trunk), (HUB_UNET, "down_blocks.", _hub_trunk)),
            adaptor=_first(shapes, (ADAPTOR, "input_blocks.", _trunk), (HUB_ADAPTOR, "down_blocks.", _hub_trunk)),
            connectors=_first(shapes, (CONNECTORS, "", _connectors), (HUB_CONNECTORS, "", _connectors)),
            autoencoder=_first(
                shapes, (AUTOENCODER, "encoder.", _autoencoder), (HUB_AUTOENCODER, "encoder.", _hub_autoencoder)
            ),
            text_encoder=_text(shapes, (CLIP_L_KEYS, *hub_text_keys(HUB_CLIP_L, projects=False))),
            text_encoder_2=_text(shapes, (CLIP_G_KEYS, *hub_text_keys(HUB_CLIP_G, projects=True))),
            hint_channels=next((shapes[key][1] for key in hints if key in shapes), 4),
            head_dims=head_dims or HeadDims(),
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise KeyMismatchError(
            f"these are not the weights of an SDXL model: its size is read from {error}, which is missing or"
            " mis-shaped. Give an SDXL file or folder and the published SUPIR file."
        ) from error


def _first(shapes: Shapes, *spellings: tuple[str, str, Callable[[Shapes, str], _Part]]) -> _Part | None:
    """A part under the first spelling of which a key is there: its prefix, how such a key goes on, and who reads it."""
    for prefix, beginning, reader in spellings:
        if _has(shapes, prefix + beginning):
            return reader(shapes, prefix)
    return None


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


def _hub_trunk(shapes: Shapes, prefix: str) -> TrunkLayout:
    levels = range(_count(shapes, prefix + "down_blocks."))
    depths = (_count(shapes, f"{prefix}down_blocks.{i}.attentions.0.transformer_blocks.") for i in levels)
    attention = f"{prefix}mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    return TrunkLayout(
        block_out_channels=tuple(shapes[f"{prefix}down_blocks.{i}.resnets.0.conv2.weight"][0] for i in levels),
        layers_per_block=_count(shapes, f"{prefix}down_blocks.0.resnets."),
        depths=tuple(depths),
        in_channels=shapes[prefix + "conv_in.weight"][1],
        context_channels=shapes[attention][1],
        vector_channels=shapes[prefix + "add_embedding.linear_1.weight"][1],
    )


def _connectors(shapes: Shapes, prefix: str) -> ConnectorLayout:
    count = _count(shapes, prefix)
    attention = "attn.to_q.weight" if prefix == CONNECTORS else "to_q.weight"
    return ConnectorLayout(
        num_connectors=count,
        cross_attentions=frozenset(index for index in range(count) if f"{prefix}{index}.{attention}" in shapes),
        hidden_channels=shapes[f"{prefix}{count - 1}.mlp_shared.0.weight"][0],
    )


def _hub_autoencoder(shapes: Shapes, prefix: str) -> AutoencoderLayout:
    prefix += "encoder."
    levels = range(_count(shapes, prefix + "down_blocks."))
    return AutoencoderLayout(
        block_out_channels=tuple(shapes[f"{prefix}down_blocks.{i}.resnets.0.conv2.weight"][0] for i in levels),
        layers_per_block=_count(shapes, f"{prefix}down_blocks.0.resnets."),
        latent_channels=shapes[prefix + "conv_out.weight"][0] // 2,
    )


def _autoencoder(shapes: Shapes, prefix: str) -> AutoencoderLayout:
    prefix += "encoder."
    num_levels = _count(shapes, prefix + "down.")
    return AutoencoderLayout(
        block_out_channels=tuple(shapes[f"{prefix}down.{i}.block.0.conv2.weight"][0] for i in range(num_levels)),
        layers_per_block=_count(shapes, prefix + "down.0.block."),
        latent_channels=shapes[prefix + "conv_out.weight"][0] // 2,
    )


def _text(shapes: Shapes, spellings: Sequence[TextKeys]) -> TextLayout | None:
    """A tower, under the first spelling of which a layer is there."""
    keys = next((keys for keys in spellings if _has(shapes, keys.layers)), None)
    if keys is None:
        return None
    vocabulary, width = shapes[keys.tokens]
    projection = shapes[keys.projection] if keys.projection else (width,)
    return TextLayout(
        width=width,
        num_layers=_count(shapes, keys.layers),
        hidden_width=shapes[keys.layers + keys.hidden][0],
        vocabulary=vocabulary,
        num_positions=shapes[keys.positions][0],
        projection=projection[keys.projection_axis],
    )
