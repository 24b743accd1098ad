"""The connectors from adaptor to UNet: ZeroSFT and zero cross attention (paper section 3.1, reference 2.4).

ZeroConv stands in for ZeroSFT where the two are compared. All start as near-identities in training: the convolutions
named ``zero_*`` are zero-initialised.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def zeroed(module: _Module) -> _Module:
    """The same module with every parameter set to zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ZeroSFT(nn.Module):
    """Zero convolution, group norm and spatial feature transform of the concatenation that enters a decoder block.

    Args:
        control_channels: channels of the control feature (``label_nc`` in the public code).
        skip_channels: channels of the UNet's skip, or of its middle feature (``norm_nc``).
        decoder_channels: channels of the decoder feature put before the skip; 0 after the middle block.
        hidden_channels: width of the shared convolution from which scale and shift are read.
        num_groups: groups of the normalisation.
    """

    def __init__(
        self,
        control_channels: int,
        skip_channels: int,
        decoder_channels: int,
        hidden_channels: int = 128,
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        joined = skip_channels + decoder_channels
        self.norm = nn.GroupNorm(num_groups, joined, eps=1e-5)
        self.mlp_shared = nn.Sequential(nn.Conv2d(control_channels, hidden_channels, 3, padding=1), nn.SiLU())
        self.zero_mul = zeroed(nn.Conv2d(hidden_channels, joined, 3, padding=1))
        self.zero_add = zeroed(nn.Conv2d(hidden_channels, joined, 3, padding=1))
        self.zero_conv = zeroed(nn.Conv2d(control_channels, skip_channels, 1))

    def forward(
        self, control: Tensor | None, skip: Tensor, decoder: Tensor | None, control_scale: float | Tensor
    ) -> Tensor:
        """Modulated concatenation ``[decoder, skip]``, all of one height and width.

        ``control_scale`` 1 is the full connector and 0 the plain concatenation of SDXL; a tensor holds one per sample,
        (B,), or a map of them, (B, 1, H, W) at any size.
        ``control`` is not looked at where it is the number 0, and may be None.
        """
        scale = per_sample(control_scale, skip)
        if control is None or is_number(scale, 0):
            return joined(decoder, skip)
        adapted = joined(decoder, skip + self.zero_conv(control))
        shared = self.mlp_shared(control)
        # Summed within the product's operation: in 16 bits it is rounded once less.
        adapted = torch.addcmul(self.zero_add(shared), self.norm(adapted), self.zero_mul(shared) + 1)
        if is_number(scale, 1):
            return adapted
        return adapted * scale + joined(decoder, skip) * (1 - scale)


class ZeroConv(nn.Module):
    """ControlNet's connector: the skip plus a zero convolution of the control feature, nothing normalised.

    Not in SUPIR; its paper compares it with ZeroSFT (section 4.4, Table 2c). Arguments and forward are ``ZeroSFT``'s.
    """

    def __init__(self, control_channels: int, skip_channels: int) -> None:
        super().__init__()
        self.zero_conv = zeroed(nn.Conv2d(control_channels, skip_channels, 1))

    def forward(
        self, control: Tensor | None, skip: Tensor, decoder: Tensor | None, control_scale: float | Tensor
    ) -> Tensor:
        """The concatenation ``[decoder, skip]`` with control added to the skip."""
        scale = per_sample(control_scale, skip)
        if control is not None and not is_number(scale, 0):
            skip = skip + self.zero_conv(control) * scale
        return joined(decoder, skip)


class ZeroCrossAttention(nn.Module):
    """Cross attention from decoder pixels to control pixels, before an upsampling (``ZeroCrossAttn``).

    Not zero-initialised, despite its published name. Cost grows with the square of the number of pixels.
    """

    def __init__(self, query_channels: int, control_channels: int, head_dim: int = 64, num_groups: int = 32) -> None:
        super().__init__()
        self.num_heads = query_channels // head_dim
        inner = self.num_heads * head_dim
        self.norm_query = nn.GroupNorm(num_groups, query_channels, eps=1e-5)
        self.norm_context = nn.GroupNorm(num_groups, control_channels, eps=1e-5)
        self.to_q = nn.Linear(query_channels, inner, bias=False)
        self.to_k = nn.Linear(control_channels, inner, bias=False)
        self.to_v = nn.Linear(control_channels, inner, bias=False)
        self.to_out = nn.Linear(inner, query_channels)

    def forward(self, control: Tensor | None, hidden: Tensor, control_scale: float | Tensor) -> Tensor:
        """``hidden`` (B, query_channels, h, w) plus the scaled attention to ``control`` (B, control_channels, h, w)."""
        scale = per_sample(control_scale, hidden)
        if control is None or is_number(scale, 0):
            return hidden
        batch, _, height, width = hidden.shape
        pixels = self.norm_query(hidden).flatten(2).transpose(1, 2)
        context = self.norm_context(control).flatten(2).transpose(1, 2)
        query, key, value = (
            projected.view(batch, -1, self.num_heads, projected.shape[-1] // self.num_heads).transpose(1, 2)
            for projected in (self.to_q(pixels), self.to_k(context), self.to_v(context))
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        attended = self.to_out(attended).transpose(1, 2).reshape(batch, -1, height, width)
        return hidden + attended * scale


def joined(decoder: Tensor | None, skip: Tensor) -> Tensor:
    """SDXL's plain concatenation; the skip alone after the middle block."""
    return skip if decoder is None else torch.cat([decoder, skip], dim=1)


def is_number(scale: float | Tensor, number: int) -> bool:
    """Whether a scale is this number for all samples, and known to be without looking on a device."""
    return isinstance(scale, float) and scale == number


def per_sample(scale: float | Tensor, like: Tensor) -> float | Tensor:
    """A scalar as a float, or one scale per sample shaped to multiply ``like`` (B, C, h, w); of a map its means."""
    if not isinstance(scale, Tensor):
        return float(scale)
    if scale.ndim == 4:
        return F.adaptive_avg_pool2d(scale.to(like), (like.shape[-2], like.shape[-1]))
    return scale.to(like).reshape(-1, 1, 1, 1)
