"""The bundled model's autoencoder: thin, convolutional, exact in tiles.

The stem is a pixel unshuffle by 4 and the last layer a pixel shuffle by 4, so no convolution runs at full resolution
and a picture costs a hundredth of what SDXL's autoencoder takes. No layer looks at global statistics: normalisation is
over the channels of one pixel. Beside each network runs a linear map of 8 x 8 blocks, set from principal components at
the start of training: it carries most of the picture from the first step on. The output at a pixel depends on a finite
neighbourhood only (``halo``), and tiles that overlap by it are exact.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from supir.models.offload import OffloadedByLeaves
from supir.models.restorers import DenseRestorer, RestorationUNet, halo_of, reach

SHUFFLE = 4
FACTOR = 8
"""Picture pixels along one side of a latent pixel."""


class ChannelNorm(nn.Module):
    """Root-mean-square normalisation over the channels of each pixel, with a learned scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return x * (x.square().mean(1, keepdim=True) + 1e-6).rsqrt() * self.weight


class ResidualBlock(nn.Module):
    """x + conv(SiLU(conv(norm(x)))), identity at the beginning of training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.conv_out.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        out: Tensor = x + self.conv_out(F.silu(self.conv_in(self.norm(x))))
        return out


class ThinEncoder(nn.Module):
    """(B, 3, 8h, 8w) in [-1, 1] to moments (B, 2 * latent_channels, h, w)."""

    def __init__(self, latent_channels: int, widths: tuple[int, int], num_blocks: tuple[int, int]) -> None:
        super().__init__()
        fine, coarse = widths
        self.conv_in = nn.Conv2d(3 * SHUFFLE**2, fine, 3, padding=1)
        self.fine = nn.Sequential(*(ResidualBlock(fine) for _ in range(num_blocks[0])))
        self.down = nn.Conv2d(4 * fine, coarse, 1)
        self.coarse = nn.Sequential(*(ResidualBlock(coarse) for _ in range(num_blocks[1])))
        self.conv_out = nn.Conv2d(coarse, 2 * latent_channels, 3, padding=1)
        nn.init.normal_(self.conv_out.weight, std=1e-3)
        self.linear = nn.Conv2d(3, 2 * latent_channels, FACTOR, stride=FACTOR)

    def forward(self, x: Tensor) -> Tensor:
        """Moments: mean and log variance along the channels."""
        h = self.fine(self.conv_in(F.pixel_unshuffle(x, SHUFFLE)))
        h = self.coarse(self.down(F.pixel_unshuffle(h, 2)))
        out: Tensor = self.linear(x) + self.conv_out(h)
        return out


class ThinDecoder(nn.Module):
    """Latents (B, latent_channels, h, w) to pictures (B, 3, 8h, 8w), nominally in [-1, 1]."""

    def __init__(self, latent_channels: int, widths: tuple[int, int], num_blocks: tuple[int, int]) -> None:
        super().__init__()
        fine, coarse = widths
        self.conv_in = nn.Conv2d(latent_channels, coarse, 3, padding=1)
        self.coarse = nn.Sequential(*(ResidualBlock(coarse) for _ in range(num_blocks[1])))
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.fine = nn.Sequential(*(ResidualBlock(fine) for _ in range(num_blocks[0])))
        self.conv_out = nn.Conv2d(fine, 3 * SHUFFLE**2, 3, padding=1)
        nn.init.normal_(self.conv_out.weight, std=1e-3)
        self.linear = nn.Conv2d(latent_channels, 3 * FACTOR**2, 1)

    def forward(self, z: Tensor) -> Tensor:
        """See the class."""
        h = F.pixel_shuffle(self.up(self.coarse(self.conv_in(z))), 2)
        return F.pixel_shuffle(self.linear(z), FACTOR) + F.pixel_shuffle(self.conv_out(self.fine(h)), SHUFFLE)


class ThinAutoencoder(OffloadedByLeaves, ModelMixin, ConfigMixin):
    """The three methods of ``SupirAutoencoder`` (``encode``, ``encode_degraded``, ``decode``) at a tenth of the cost.

    Pictures are (B, 3, H, W) in [-1, 1] with sides a multiple of 8. Latents are to be multiplied by
    ``config.scaling_factor`` outside, as with ``AutoencoderKL``.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 32,
        encoder_widths: tuple[int, int] = (64, 128),
        encoder_blocks: tuple[int, int] = (2, 4),
        restorer_widths: tuple[int, ...] = (48, 96, 160),
        restorer_blocks: tuple[int, ...] = (2, 2, 3),
        decoder_widths: tuple[int, int] = (96, 160),
        decoder_blocks: tuple[int, int] = (3, 4),
        scaling_factor: float = 1.0,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1),
        dense_blocks: int = 0,
        plain_end: bool = False,
        sees_finer: bool = False,
    ) -> None:
        # dense_blocks: of a ``DenseRestorer``, which then takes the place of the ``RestorationUNet``; it alone may have
        # a plain end beside its vivid one, and see what is finer than an enlargement.
        # block_out_channels carries no width: pipelines of diffusers read its length, 1 + log2 of the factor.
        super().__init__()
        self.encoder = ThinEncoder(latent_channels, encoder_widths, encoder_blocks)
        self.restorer = (
            DenseRestorer(dense_blocks, plain_end=plain_end, sees_finer=sees_finer)
            if dense_blocks
            else RestorationUNet(restorer_widths, restorer_blocks)
        )
        self.decoder = ThinDecoder(latent_channels, decoder_widths, decoder_blocks)

    @property
    def has_detail(self) -> bool:
        """Whether ``encode_degraded`` goes from plain to vivid."""
        return bool(self.config.dense_blocks and self.config.plain_end)

    @property
    def zooms(self) -> bool:
        """Whether E_dr sees best what is enlarged four times: what is enlarged less is given to it larger."""
        return bool(self.config.dense_blocks)

    def with_new_restorer(self, **changes: Any) -> ThinAutoencoder:
        """One with the same encoder and decoder, copied, and a restoring network that has learned nothing yet.

        Args:
            changes: of the configuration, such as ``dense_blocks``.
        """
        own = {name: value for name, value in self.config.items() if not name.startswith("_")}
        made = ThinAutoencoder(**own | changes)
        made.encoder.load_state_dict(self.encoder.state_dict())
        made.decoder.load_state_dict(self.decoder.state_dict())
        return made

    @property
    def halo(self) -> int:
        """Picture pixels (a multiple of 8) beyond which nothing influences a pixel in ``encode`` and ``decode``."""
        return FACTOR * (self._coding_reach // FACTOR + 1)

    @property
    def degraded_halo(self) -> int:
        """The same for ``encode_degraded``, whose restoring network looks farther."""
        dense = self.config.dense_blocks
        restoring = halo_of(dense) if dense else reach(self.config.restorer_blocks)
        return FACTOR * ((self._coding_reach + restoring) // FACTOR + 1)

    @property
    def _coding_reach(self) -> int:
        fine = max(self.config.encoder_blocks[0], self.config.decoder_blocks[0])
        coarse = max(self.config.encoder_blocks[1], self.config.decoder_blocks[1])
        return int(SHUFFLE * (2 * fine + 1) + FACTOR * (2 * coarse + 1))

    @apply_forward_hook
    def encode(self, x: Tensor) -> AutoencoderKLOutput:
        """Posterior of the latent of a clean picture."""
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(self.encoder(x)))

    @apply_forward_hook
    def encode_degraded(self, x: Tensor, detail: float = 1.0, zoom: int = 1) -> AutoencoderKLOutput:
        """Posterior of the latent that the clean picture would have, from a degraded one (paper section 3.1).

        E_dr is the restoring network before the plain encoder. ``detail``: from 0, plain, to 1, vivid, where it has
        both ends (``has_detail``). ``zoom``: how many times larger E_dr sees the picture, where it can (``zooms``).
        """
        if isinstance(self.restorer, DenseRestorer):
            return self.encode(self.restorer(x, detail, zoom))
        return self.encode(self.restorer(x))

    @apply_forward_hook
    def decode(self, z: Tensor) -> DecoderOutput:
        """The picture of a latent (already divided by ``scaling_factor``)."""
        return DecoderOutput(sample=self.decoder(z))

    def forward(self, x: Tensor) -> DecoderOutput:
        """Reconstruction through the mode of the clean posterior."""
        return DecoderOutput(sample=self.decoder(self.encode(x).latent_dist.mode()))
