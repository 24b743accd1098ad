"""SDXL's autoencoder with a second, degradation-robust encoder (paper section 3.1, reference 2.6)."""

from __future__ import annotations

import inspect
from typing import Any

from diffusers import AutoencoderKL, ModelMixin
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution, Encoder
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from supir.models.offload import OffloadedByLeaves
from supir.models.tiled_autoencoder import decode_in_lock_step, encode_in_lock_step

SDXL_AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}
"""What SDXL-base sets apart from diffusers' defaults."""


# ModelMixin is named again because diffusers, loading a model folder, looks for it in the component's own module.
class SupirAutoencoder(OffloadedByLeaves, AutoencoderKL, ModelMixin):
    """``AutoencoderKL`` plus ``degraded_encoder``; SDXL's when made without arguments.

    Three methods carry the pipeline: ``encode``, ``encode_degraded`` and ``decode``; latents are multiplied by
    ``config.scaling_factor`` outside. Both encoders share ``quant_conv``, as published.
    """

    def __init__(self, **autoencoder: Any) -> None:
        super().__init__(**(SDXL_AUTOENCODER | autoencoder))
        self.degraded_encoder = Encoder(
            in_channels=self.config.in_channels,
            out_channels=self.config.latent_channels,
            down_block_types=self.config.down_block_types,
            block_out_channels=self.config.block_out_channels,
            layers_per_block=self.config.layers_per_block,
            act_fn=self.config.act_fn,
            norm_num_groups=self.config.norm_num_groups,
            double_z=True,
            mid_block_add_attention=self.config.mid_block_add_attention,
        )

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        """The parent's, as all arguments pass through."""
        return set(inspect.signature(AutoencoderKL.__init__).parameters)

    @apply_forward_hook
    def encode_degraded(self, x: Tensor) -> AutoencoderKLOutput:
        """Posterior of the latent that the clean picture would have, from a degraded ``x`` (B, 3, H, W) in [-1, 1]."""
        moments = self.degraded_encoder(x)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments))

    @apply_forward_hook
    def encode_in_lock_step(self, x: Tensor, tile: int, *, degraded: bool) -> Tensor:
        """Moments of ``x`` (B, 3, H, W) by the public code's tiles of ``tile`` pixels (reference section 10)."""
        moments = encode_in_lock_step(self.degraded_encoder if degraded else self.encoder, x, tile)
        return moments if self.quant_conv is None else self.quant_conv(moments)

    @apply_forward_hook
    def decode_in_lock_step(self, z: Tensor, tile: int) -> Tensor:
        """Pixels of ``z`` (B, C, h, w) by the public code's tiles of ``tile`` latent pixels (reference section 10)."""
        return decode_in_lock_step(self.decoder, z if self.post_quant_conv is None else self.post_quant_conv(z), tile)
