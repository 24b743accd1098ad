"""The adaptor: a copy of the UNet's encoder that reads the LQ latent (``GLVControl``; reference 2.3).

The paper trims it to half of the transformer blocks; the published checkpoints are not trimmed. Depth is configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2DCrossAttn, get_down_block
from torch import Tensor, nn

from supir.models.connectors import zeroed
from supir.models.offload import OffloadedByLeaves
from supir.models.unet import chunked_feed_forward, condition_vector, encode, encode_outer


class SupirAdaptor(OffloadedByLeaves, ModelMixin, AttentionMixin, ConfigMixin, PeftAdapterMixin):
    """Trunk whose ten features steer the UNet; the published, untrimmed depth when made without arguments.

    ``transformer_layers_per_block`` has one depth a level; the last also serves the middle block, and the first of
    SDXL's stands for nothing. The paper's trim is (1, 1, 5) here, half of SDXL's (1, 2, 10): 17 of 34 blocks.
    ``attention_head_dim`` is, as in diffusers, the number of heads.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("BasicTransformerBlock", "ResnetBlock2D")
    _repeated_blocks = ("BasicTransformerBlock",)

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        hint_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280),
        down_block_types: Sequence[str] = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        layers_per_block: int = 2,
        transformer_layers_per_block: Sequence[int] = (1, 2, 10),
        attention_head_dim: Sequence[int] = (5, 10, 20),
        cross_attention_dim: int = 2048,
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 2816,
        norm_num_groups: int = 32,
    ) -> None:
        super().__init__()
        width = block_out_channels[0]
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.hint_conv = zeroed(nn.Conv2d(hint_channels, width, 3, padding=1))
        self.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(width, 4 * width)
        self.add_embedding = TimestepEmbedding(projection_class_embeddings_input_dim, 4 * width)
        common = {
            "resnet_eps": 1e-5,
            "resnet_act_fn": "silu",
            "resnet_groups": norm_num_groups,
            "cross_attention_dim": cross_attention_dim,
            "use_linear_projection": True,
        }
        self.down_blocks = nn.ModuleList()
        for level, kind in enumerate(down_block_types):
            self.down_blocks.append(
                get_down_block(
                    kind,
                    num_layers=layers_per_block,
                    in_channels=block_out_channels[max(level - 1, 0)],
                    out_channels=block_out_channels[level],
                    temb_channels=4 * width,
                    add_downsample=level < len(down_block_types) - 1,
                    transformer_layers_per_block=transformer_layers_per_block[level],
                    num_attention_heads=attention_head_dim[level],
                    attention_head_dim=attention_head_dim[level],
                    downsample_padding=1,
                    **common,
                )
            )
        self.mid_block = UNetMidBlock2DCrossAttn(
            in_channels=block_out_channels[-1],
            temb_channels=4 * width,
            transformer_layers_per_block=transformer_layers_per_block[-1],
            num_attention_heads=attention_head_dim[-1],
            **common,
        )
        chunked_feed_forward(self)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: dict[str, Tensor],
        hint: Tensor,
        *,
        encoder_attention_mask: Tensor | None = None,
        outer_only: bool = False,
    ) -> list[Tensor]:
        """Control features of ``hint``, the LQ latent (B, latent channels, h, w), beside the noisy ``sample``.

        ``sample`` is already scaled by c_in; ``timestep`` is the index 0..999, (B,). Returns the encoder's outputs in
        emission order, at scales 1, 1, 1, 1/2, 1/2, 1/2, 1/4, 1/4, 1/4 and the middle at 1/4 for three levels.
        ``encoder_attention_mask`` (B, tokens) says which tokens are read; unset: all.
        With ``outer_only`` those before the first downsampling alone, the first three, at their share of the cost.
        """
        sample, encoder_hidden_states = sample.to(hint.dtype), encoder_hidden_states.to(hint.dtype)
        vector = condition_vector(added_cond_kwargs, self.config.addition_time_embed_dim).to(hint.dtype)
        emb = self.time_embedding(self.time_proj(timestep.expand(len(sample))).to(hint.dtype))
        emb = emb + self.add_embedding(vector)
        hidden = self.conv_in(sample) + self.hint_conv(hint)
        if outer_only:
            return encode_outer(self, hidden, emb, encoder_hidden_states)
        middle, skips = encode(self, hidden, emb, encoder_hidden_states, encoder_attention_mask)
        return [*skips, middle]
