"""SDXL's autoencoder with a second, degradation-robust encoder (paper section 3.1, reference 2.6).

And the public code's tiles of it, which only its reproduction needs (reference section 10); elsewhere
`supir.tensors.tiling.tiled` does the same job with blended tiles. All tiles go through each layer in lock step and
share their normalisation: the GroupNorm statistics are the pixel-weighted averages of their means and variances, so the
result differs from the untiled one by construction, and every tile's features are held at once.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch.nn.functional as F
from diffusers import AutoencoderKL, ModelMixin
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Decoder, DiagonalGaussianDistribution, Encoder
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from supir.models.norms import normed_together
from supir.models.offload import OffloadedByLeaves

ENCODER_PAD = 32
"""Pixels a tile sees beyond what it yields."""
DECODER_PAD = 11
"""Latent pixels a tile sees beyond what it yields."""


@dataclass(frozen=True)
class Extent:
    """One tile along one axis, in input pixels: it sees `start` to `stop` and yields `first` to `last`."""

    start: int
    stop: int
    first: int
    last: int


def lock_step_extents(length: int, tile: int, pad: int) -> list[Extent]:
    """Cut `length` input pixels as the public code does: evenly, steps rounded up to a power of two where it fits."""
    num_tiles = max(1, math.ceil((length - 2 * pad) / tile))
    step = _rounded_step(math.ceil((length - 2 * pad) / num_tiles), tile)
    extents = []
    for number in range(num_tiles):
        first = pad + number * step
        last = min(first + step, length)
        extents.append(
            Extent(
                start=max(0, first - pad),
                stop=min(length, last + pad),
                first=0 if first <= pad else first,
                last=length if last >= length - pad else last,
            )
        )
    return extents


def encode_in_lock_step(encoder: Encoder, pixels: Tensor, tile: int = 512) -> Tensor:
    """Moments (B, 2 C, H // 8, W // 8), before `quant_conv`, of `pixels` (B, 3, H, W), in tiles of `tile` pixels."""
    if max(pixels.shape[-2:]) <= tile + 2 * ENCODER_PAD:
        return encoder(pixels)
    scale = Fraction(1, 2 ** (len(encoder.down_blocks) - 1))
    tiles, places = _cut(pixels, tile, ENCODER_PAD)
    tiles = [encoder.conv_in(part) for part in tiles]
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            tiles = _resnet(resnet, tiles)
        for downsampler in block.downsamplers or []:
            tiles = [downsampler(part) for part in tiles]
    tiles = _middle(encoder.mid_block, tiles)
    return _paste(_head(encoder, tiles), places, pixels, scale)


def decode_in_lock_step(decoder: Decoder, latent: Tensor, tile: int = 64) -> Tensor:
    """Pixels (B, 3, 8 h, 8 w) of a `latent` (B, C, h, w) past `post_quant_conv`, in tiles of `tile` latent pixels."""
    if max(latent.shape[-2:]) <= tile + 2 * DECODER_PAD:
        return decoder(latent)
    scale = Fraction(2 ** (len(decoder.up_blocks) - 1))
    tiles, places = _cut(latent, tile, DECODER_PAD)
    tiles = _middle(decoder.mid_block, [decoder.conv_in(part) for part in tiles])
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            tiles = _resnet(resnet, tiles)
        for upsampler in block.upsamplers or []:
            tiles = [upsampler(part) for part in tiles]
    return _paste(_head(decoder, tiles), places, latent, scale)


def _rounded_step(step: int, tile: int) -> int:
    for divisor in (32, 16, 8, 4, 2):
        rounded = math.ceil(step / divisor) * divisor
        if rounded <= tile or rounded == step:
            return rounded
    return step


def _cut(whole: Tensor, tile: int, pad: int) -> tuple[list[Tensor], list[tuple[Extent, Extent]]]:
    """The tiles, rows outer, and where each lies vertically and horizontally."""
    rows, columns = (lock_step_extents(length, tile, pad) for length in whole.shape[-2:])
    places = [(row, column) for row in rows for column in columns]
    return [whole[..., row.start : row.stop, column.start : column.stop] for row, column in places], places


def _paste(tiles: list[Tensor], places: list[tuple[Extent, Extent]], whole: Tensor, scale: Fraction) -> Tensor:
    height, width = (int(length * scale) for length in whole.shape[-2:])
    result = tiles[0].new_zeros((len(whole), tiles[0].shape[1], height, width))
    for part, (row, column) in zip(tiles, places, strict=True):
        (top, bottom, upper), (left, right, outer) = (_output(extent, scale) for extent in (row, column))
        result[..., top:bottom, left:right] = part[..., top - upper : bottom - upper, left - outer : right - outer]
    return result


def _output(extent: Extent, scale: Fraction) -> tuple[int, int, int]:
    """First and last output pixel that the tile yields, and the first it computed; fractions are cut off."""
    return int(extent.first * scale), int(extent.last * scale), int(extent.start * scale)


def _middle(block: UNetMidBlock2D, tiles: list[Tensor]) -> list[Tensor]:
    first, *others = block.resnets
    tiles = _resnet(first, tiles)
    for attention, resnet in zip(block.attentions, others, strict=True):
        if attention is not None:
            tiles = _attention(attention, tiles)
        tiles = _resnet(resnet, tiles)
    return tiles


def _head(module: Encoder | Decoder, tiles: list[Tensor]) -> list[Tensor]:
    return [module.conv_out(module.conv_act(part)) for part in normed_together(module.conv_norm_out, tiles)]


def _resnet(block: ResnetBlock2D, tiles: list[Tensor]) -> list[Tensor]:
    hidden = [block.conv1(block.nonlinearity(part)) for part in normed_together(block.norm1, tiles)]
    hidden = [block.conv2(block.nonlinearity(part)) for part in normed_together(block.norm2, hidden)]
    if block.conv_shortcut is not None:
        tiles = [block.conv_shortcut(part) for part in tiles]
    return [(part + change) / block.output_scale_factor for part, change in zip(tiles, hidden, strict=True)]


def _attention(block: Attention, tiles: list[Tensor]) -> list[Tensor]:
    """Attention within each tile, over its own pixels only."""
    results = []
    for part, normed in zip(tiles, normed_together(block.group_norm, tiles), strict=False):
        tokens = normed.flatten(2).transpose(1, 2)
        heads = (
            layer(tokens).unflatten(2, (block.heads, -1)).transpose(1, 2)
            for layer in (block.to_q, block.to_k, block.to_v)
        )
        answer = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        change = block.to_out[0](answer).transpose(1, 2).reshape(part.shape)
        results.append((part + change) / block.rescale_output_factor)
    return results


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
