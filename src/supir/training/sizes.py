"""The sizes that models come in, built with random weights or on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from supir.models.adaptor import SupirAdaptor
from supir.models.autoencoder import SupirAutoencoder
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.models.unet import SDXL_UNET, SupirUNet

Networks = dict[str, Any]
"""The components of a pipeline by name."""

_SPECIAL = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}


@dataclass(frozen=True, kw_only=True)
class Size:
    """Configurations of the components; what is left out is SDXL's."""

    autoencoder: dict[str, Any]
    thin: bool = True
    trunk: dict[str, Any] = field(default_factory=dict)
    """Shared by UNet and adaptor."""
    connectors: dict[str, Any] = field(default_factory=dict)
    adaptor: dict[str, Any] = field(default_factory=dict)
    text_encoder: dict[str, Any]
    text_encoder_2: dict[str, Any]
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The model's own numbers for restoring."""


def half(depths: Sequence[int]) -> tuple[int, ...]:
    """Half of the transformer blocks of each level, of one that one: the paper's trim of the adaptor (section 3.1)."""
    return tuple(max(1, depth // 2) for depth in depths)


def trunk(widths: tuple[int, ...], heads: tuple[int, ...], text_width: int, size_width: int) -> dict[str, Any]:
    """A trunk with one transformer block a level but the first, under two text towers of one width."""
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * (len(widths) - 1)),
        "attention_head_dim": heads,
        "transformer_layers_per_block": (1,) * len(widths),
        "cross_attention_dim": 2 * text_width,
        "addition_time_embed_dim": size_width,
        "projection_class_embeddings_input_dim": text_width + 6 * size_width,
        "norm_num_groups": 32,
    }


def tower(width: int, layers: int, heads: int, **extra: Any) -> dict[str, Any]:
    """One text tower whose pooled vector, where it has one, is as wide as its layers."""
    return {
        **_SPECIAL,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": width,
        **extra,
    }


TEXT_WIDTH = 32
SIZE_WIDTH = 32
TRUNK = trunk((96, 96), (3, 3), TEXT_WIDTH, SIZE_WIDTH) | {"layers_per_block": 1}
"""Configuration shared by the UNet and the adaptor of the bundled model."""

_LITTLE = {"min_size": 64, "text_guidance": 1.0, "text_guidance_start": None, "s_churn": 0.0}

SIZES: dict[str, Size] = {
    "smoke": Size(
        autoencoder={
            "scaling_factor": 4.0,
            "latent_channels": 8,
            "encoder_widths": (8, 16),
            "encoder_blocks": (1, 1),
            "restorer_widths": (8, 16),
            "restorer_blocks": (1, 1),
            "decoder_widths": (16, 16),
            "decoder_blocks": (1, 1),
        },
        trunk=trunk((32, 32, 64), (1, 1, 2), 16, 8),
        connectors={"connector_hidden_channels": 8, "connector_head_dim": 32},
        text_encoder=tower(16, 2, 2),
        text_encoder_2=tower(16, 2, 2),
        presets={"all": {**_LITTLE, "num_steps": 4, "start_sigma": 0.5}},
    ),
    "small": Size(
        # Latents of deviation 4: the last sampling step then leaves a quarter of the error.
        autoencoder={"scaling_factor": 4.0},
        trunk=TRUNK,
        connectors={"connector_hidden_channels": 32, "connector_head_dim": 32},
        text_encoder=tower(TEXT_WIDTH, 2, 2),
        text_encoder_2=tower(TEXT_WIDTH, 2, 2),
        presets={"all": {**_LITTLE, "min_size": 256, "tile": 512, "num_steps": 20, "start_sigma": 0.25}},
    ),
    "mid": Size(
        autoencoder={"block_out_channels": (32, 64, 128, 128)},
        thin=False,
        trunk={
            **trunk((128, 256, 512), (2, 4, 8), 256, 128),
            "transformer_layers_per_block": (1, 2, 4),
        },
        connectors={"connector_hidden_channels": 64},
        adaptor={"transformer_layers_per_block": half((1, 2, 4))},
        text_encoder=tower(256, 4, 4),
        text_encoder_2=tower(256, 4, 4),
    ),
    "paper": Size(
        autoencoder={},
        thin=False,
        # "Half of the ViT blocks from each encoder block" (section 3.1) of SDXL's (1, 2, 10); its first level has none.
        adaptor={"transformer_layers_per_block": half(SDXL_UNET["transformer_layers_per_block"])},
        text_encoder=tower(768, 12, 12, hidden_act="quick_gelu"),
        text_encoder_2=tower(1280, 32, 20, hidden_act="gelu"),
    ),
}


def with_fresh_connectors(unet: SupirUNet, kind: str, seed: int) -> SupirUNet:
    """The same UNet with connectors of a kind that know nothing yet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = SupirUNet.from_config({**unet.config, "connector_kind": kind})
    known = {name: weight for name, weight in unet.state_dict().items() if not name.startswith("connectors.")}
    fresh.load_state_dict(fresh.state_dict() | known)
    return fresh


def build_size(name: str, *, seed: int = 0, meta: bool = False, connectors: str = "zero_sft") -> Networks:
    """All networks of a size of ``SIZES``, with a kind of connectors of ``supir.models.unet.CONNECTOR_KINDS``.

    Their weights are random by ``seed``, and torch's own generator is left as it was; or ``meta``: without memory, to
    be counted.
    """
    size = SIZES[name]
    if meta:
        with init_empty_weights(include_buffers=False):
            return _all_networks(size, connectors)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _all_networks(size, connectors)


def _all_networks(size: Size, connectors: str) -> Networks:
    coder: Any = ThinAutoencoder(**size.autoencoder) if size.thin else SupirAutoencoder(**size.autoencoder)
    return {"autoencoder": coder, **_diffusion_networks(size, coder.config.latent_channels, connectors)}


def _diffusion_networks(size: Size, latent_channels: int, connectors: str) -> Networks:
    channels: dict[str, Any] = {"in_channels": latent_channels}
    adaptor = SupirAdaptor(hint_channels=latent_channels, **channels, **(size.trunk | size.adaptor))
    joined = {"connector_kind": connectors, **size.connectors}
    if "down_block_types" in size.trunk:
        kinds = reversed(size.trunk["down_block_types"])
        joined["up_block_types"] = tuple(kind.replace("Down", "Up") for kind in kinds)
    unet = SupirUNet(out_channels=latent_channels, **channels, **joined, **size.trunk)
    return {
        "unet": unet,
        "adaptor": adaptor,
        "text_encoder": CLIPTextModel(CLIPTextConfig(**size.text_encoder)),
        "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**size.text_encoder_2)),
    }
