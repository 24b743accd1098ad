"""SDXL's UNet with the connectors in place of its skip concatenations (paper figure 3, reference 2.5).

Every parameter of the prior keeps the name diffusers gives it, so SDXL checkpoints and LoRAs load unchanged; what is
ours lives under ``connectors.*``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import ModelMixin, UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from supir.errors import OptionError
from supir.models.connectors import ZeroConv, ZeroCrossAttention, ZeroSFT
from supir.models.offload import OffloadedByLeaves

_PARTS = [GEGLU, nn.Dropout, nn.Linear]
IN_ROWS_ON = ("cpu", "meta")
"""Kinds of devices; what is planned without numbers is planned as on a processor."""
TOKENS_AT_ONCE = 2048
"""Fewer would be as fast, but 8-bit weights are widened once for each."""


class FeedForwardInRows(FeedForward):
    """diffusers' feed-forward with GEGLU, of the same parameters under the same names, in rows of tokens.

    At SDXL's size the wide tensor between its two products is hundreds of megabytes and goes through memory four
    times. In rows it stays in a processor's cache: measured 0 to 30 % faster there (`make bench`), and less memory at
    the worst moment. On an accelerator nothing is gained: more launches, 8-bit weights widened for each, and no less
    memory at the worst moment, which lies elsewhere.
    """

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., tokens, features) to the same shape."""
        # A compiler joins the operations by itself, and training needs what lies between.
        in_rows = hidden_states.device.type in IN_ROWS_ON and not torch.is_grad_enabled()
        if not in_rows or torch.compiler.is_compiling():
            return super().forward(hidden_states, *args, **kwargs)
        tokens = hidden_states.flatten(0, -2)
        out = [self._rows(part) for part in torch.split(tokens, TOKENS_AT_ONCE)]
        return (out[0] if len(out) == 1 else torch.cat(out)).view(hidden_states.shape)

    def _rows(self, tokens: Tensor) -> Tensor:
        value, gate = self.net[0].proj(tokens).chunk(2, dim=-1)
        result: Tensor = self.net[2](F.gelu(gate).mul_(value))
        return result


def chunked_feed_forward(network: nn.Module) -> None:
    """Change a network's feed-forwards in place, those with an exact GEGLU; the parameters are not touched."""
    for layer in network.modules():
        if type(layer) is FeedForward and [type(part) for part in cast(nn.ModuleList, layer.net)] == _PARTS:
            layer.__class__ = FeedForwardInRows


SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""What SDXL-base sets apart from diffusers' defaults; ``attention_head_dim`` is, as there, the number of heads."""


def condition_vector(conditions: dict[str, Tensor], size_embed_dim: int) -> Tensor:
    """The vector (B, pooled + 6 x size_embed_dim) that joins the time embedding (reference section 4).

    ``conditions`` holds either ``vector``, finished, or diffusers' ``text_embeds`` (B, pooled) and ``time_ids`` (B, 6):
    original size, crop, target size, each (height, width).
    """
    if "vector" in conditions:
        return conditions["vector"]
    pooled, sizes = conditions["text_embeds"], conditions["time_ids"]
    embedded = get_timestep_embedding(sizes.flatten(), size_embed_dim, flip_sin_to_cos=True, downscale_freq_shift=0)
    return torch.cat([pooled, embedded.reshape(len(pooled), -1).to(pooled)], dim=1)


@dataclass
class SupirUNetOutput(UNet2DConditionOutput):
    """What one evaluation yields: ``sample``, the prediction, and what another may be given."""

    deep: Tensor | None = None
    """The feature (B, channels, h, w) that enters the last decoder block; None of the plain SDXL forward."""


CONNECTOR_KINDS = ("zero_sft", "zero_conv")
"""What may join adaptor and decoder: the paper's connector, and the one that it is compared with (Table 2c)."""


# ModelMixin is named again because diffusers, loading a model folder, looks for it in the component's own module.
class SupirUNet(OffloadedByLeaves, UNet2DConditionModel, ModelMixin):
    """``UNet2DConditionModel`` that owns the connectors; SDXL-base when made without arguments.

    Args:
        connector_kind: ``zero_sft``, or ``zero_conv`` to compare with; a key of ``CONNECTOR_KINDS``.
        connector_hidden_channels: width of each ZeroSFT's shared convolution.
        connector_head_dim: channels of one head of the cross attentions.
        control_channels: channels of the adaptor's levels; None where they equal ``block_out_channels``.
        prediction_type: ``epsilon`` (SDXL) or ``v_prediction``; read by the pipeline, not by the forward.
        unet: any argument of ``UNet2DConditionModel``, over ``SDXL_UNET``.
    """

    def __init__(
        self,
        *,
        connector_kind: str = "zero_sft",
        connector_hidden_channels: int = 128,
        connector_head_dim: int = 64,
        control_channels: Sequence[int] | None = None,
        prediction_type: str = "epsilon",
        **unet: Any,
    ) -> None:
        if connector_kind not in CONNECTOR_KINDS:
            raise OptionError(f"connector_kind is {connector_kind!r}; it must be one of {', '.join(CONNECTOR_KINDS)}")
        super().__init__(**(SDXL_UNET | unet))
        self.register_to_config(
            connector_kind=connector_kind,
            connector_hidden_channels=connector_hidden_channels,
            connector_head_dim=connector_head_dim,
            control_channels=control_channels,
            prediction_type=prediction_type,
        )
        self.connectors = nn.ModuleList(self._build_connectors())
        chunked_feed_forward(self)

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        """Ours and the parent's, as the parent's arguments pass through ``**unet``."""
        ours = inspect.signature(SupirUNet.__init__).parameters
        return (set(ours) | set(inspect.signature(UNet2DConditionModel.__init__).parameters)) - {"unet"}

    def _build_connectors(self) -> list[nn.Module]:
        """Numbered as published: 0 joins the last decoder block, the highest follows the middle block."""
        own = encoder_channels(self.config.block_out_channels, self.config.layers_per_block)
        control = encoder_channels(
            self.config.control_channels or self.config.block_out_channels, self.config.layers_per_block
        )
        hidden, groups = self.config.connector_hidden_channels, self.config.norm_num_groups

        def joining(feature: int, skip: int, decoder: int) -> nn.Module:
            if self.config.connector_kind == "zero_conv":
                return ZeroConv(feature, skip)
            return ZeroSFT(feature, skip, decoder, hidden, groups)

        decoder = own[-1]
        connectors = [joining(control.pop(), own.pop(), 0)]
        for block in self.up_blocks:
            for resnet in block.resnets:
                feature = control.pop()
                connectors.append(joining(feature, own.pop(), decoder))
                decoder = resnet.out_channels
            if block.upsamplers is not None:
                connectors.append(ZeroCrossAttention(decoder, feature, self.config.connector_head_dim, groups))
        return connectors[::-1]

    def get_aug_embed(self, emb: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: dict[str, Tensor]) -> Tensor:
        """Diffusers' text-and-size embedding, also from a finished ``vector``."""
        vector = condition_vector(added_cond_kwargs, self.config.addition_time_embed_dim)
        embedding: Tensor = self.add_embedding(vector.to(emb.dtype))
        return embedding

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        *args: Any,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        control: Sequence[Tensor] | None = None,
        control_scale: float | Tensor = 1.0,
        deep: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> SupirUNetOutput | UNet2DConditionOutput | tuple[Tensor]:
        """Predict the noise (or velocity) of ``sample`` (B, latent channels, h, w), already scaled by c_in.

        Args:
            timestep: index 0..999 of the training schedule, one or (B,).
            encoder_hidden_states: text tokens (B, tokens, cross_attention_dim).
            added_cond_kwargs: see ``condition_vector``.
            control: the adaptor's features in emission order; None is the plain SDXL forward of diffusers.
            control_scale: strength of the connectors in [0, 1], one, (B,) or (B, 1, h, w). Where it is the number 0,
                ``control`` is not looked at, and may be empty.
            deep: that of an earlier evaluation at a nearby ``timestep``: then only the first encoder and the last
                decoder block are run (the idea of DeepCache, arXiv 2312.00858), and of ``control`` only the features
                before the first downsampling are read.
            encoder_attention_mask: (B, tokens), true where a token is read; unset: all. Not together with ``deep``.
        """
        if control is None:
            return super().forward(
                sample, timestep, encoder_hidden_states, *args,
                added_cond_kwargs=added_cond_kwargs, encoder_attention_mask=encoder_attention_mask,
                return_dict=return_dict, **kwargs,
            )  # fmt: skip
        emb = self.time_embedding(self.get_time_embed(sample, timestep))
        emb = emb + self.get_aug_embed(emb, encoder_hidden_states, added_cond_kwargs or {})
        hidden = self.conv_in(sample)
        if deep is None:
            hidden, skips = encode(self, hidden, emb, encoder_hidden_states, encoder_attention_mask)
        else:
            skips = encode_outer(self, hidden, emb, encoder_hidden_states)
        used = len(skips) + (deep is None)
        off = isinstance(control_scale, (int, float)) and control_scale == 0
        features: list[Tensor | None] = [None] * used if off else list(control[:used])
        text = encoder_hidden_states, encoder_attention_mask
        hidden, deep = self._decode(hidden, skips, emb, text, features, control_scale, deep)
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return SupirUNetOutput(sample=hidden, deep=deep) if return_dict else (hidden,)

    def _decode(
        self,
        hidden: Tensor,
        skips: list[Tensor],
        emb: Tensor,
        text: tuple[Tensor, Tensor | None],
        control: list[Tensor | None],
        control_scale: float | Tensor,
        deep: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The decoder, each concatenation replaced by its connector, each upsampling preceded by cross attention.

        With ``deep`` its last block alone. Also returns the feature that entered that block.
        """
        if deep is None:
            blocks, connectors = self.up_blocks, reversed(self.connectors)
            hidden = next(connectors)(control.pop(), hidden, None, control_scale)
        else:
            blocks, connectors = self.up_blocks[-1:], reversed(self.connectors[: len(skips)])
            hidden = deep
        for block in blocks:
            entering = hidden
            for resnet, attention in layers(block):
                feature = control.pop()
                hidden = next(connectors)(feature, skips.pop(), hidden, control_scale)
                hidden = self._run(resnet, hidden, emb)
                if attention is not None:
                    read = {"encoder_attention_mask": text[1], "return_dict": False}
                    hidden = self._run(attention, hidden, text[0], **read)[0]
            if block.upsamplers is not None:
                hidden = next(connectors)(feature, hidden, control_scale)
                size = skips[-1].shape[-2:]
                hidden = block.upsamplers[0](hidden, None if size[0] == 2 * hidden.shape[-2] else size)
        return hidden, entering

    def _run(self, module: nn.Module, *inputs: Tensor, **keywords: Any) -> Any:
        """One decoder module, recomputed in the backward pass when gradient checkpointing is on."""
        if torch.is_grad_enabled() and self.up_blocks[0].gradient_checkpointing:
            return torch.utils.checkpoint.checkpoint(module, *inputs, use_reentrant=False, **keywords)
        return module(*inputs, **keywords)


def encode(
    trunk: Any, hidden: Tensor, emb: Tensor, text: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The encoder half that UNet and adaptor share: the middle feature, and all skips beginning with ``hidden``.

    ``mask`` (B, tokens) is true for the tokens of ``text`` that are read; unset: all.
    """
    read = {"encoder_hidden_states": text, "encoder_attention_mask": mask}
    skips = [hidden]
    for block in trunk.down_blocks:
        if getattr(block, "has_cross_attention", False):
            hidden, residuals = block(hidden, temb=emb, **read)
        else:
            hidden, residuals = block(hidden, temb=emb)
        skips.extend(residuals)
    return trunk.mid_block(hidden, emb, **read), skips


def encode_outer(trunk: Any, hidden: Tensor, emb: Tensor, text: Tensor) -> list[Tensor]:
    """The skips of ``encode`` before the first downsampling, beginning with ``hidden``; nothing deeper is run."""
    skips = [hidden]
    for resnet, attention in layers(trunk.down_blocks[0]):
        hidden = resnet(hidden, emb)
        if attention is not None:
            hidden = attention(hidden, encoder_hidden_states=text, return_dict=False)[0]
        skips.append(hidden)
    return skips


def layers(block: Any) -> list[tuple[Any, Any]]:
    """The (resnet, attention) pairs of a block; None where it has no attention."""
    attentions = block.attentions if hasattr(block, "attentions") else [None] * len(block.resnets)
    return list(zip(block.resnets, attentions, strict=True))


def encoder_channels(block_out_channels: Sequence[int], layers_per_block: int) -> list[int]:
    """Channels of the encoder's outputs in emission order, the middle feature last (ten for SDXL)."""
    channels = [block_out_channels[0]]
    for level, width in enumerate(block_out_channels):
        channels += [width] * layers_per_block
        if level < len(block_out_channels) - 1:
            channels.append(width)
    return [*channels, block_out_channels[-1]]
