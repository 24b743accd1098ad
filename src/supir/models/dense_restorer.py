"""The restoring network of the bundled model's E_dr: dense blocks at a quarter of the picture's size.

Its form is that of Real-ESRGAN x4plus's generator (arXiv 2107.10833) with fewer blocks, so that it can begin from some
of x4plus's own. That one enlarges four times; this one gets a picture of the size that is wanted and folds 4 x 4 pixels
into channels, which costs as little and loses nothing. What the input already shows sharply need not be painted
again: a learned share of it is kept at each pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHUFFLE = 4
"""Picture pixels along one side of a pixel of the trunk."""
SLOPE = 0.2
RESIDUAL = 0.2
"""What a block adds is multiplied by this."""
KEPT_AT_FIRST = -3.0
"""Logit of the share of the input that is kept before training: 5 %."""


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the outputs of all before it; the last is added to the input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        inputs = [width + k * growth for k in range(5)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(number, growth if k < 4 else width, 3, padding=1) for k, number in enumerate(inputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same shape."""
        known = [x]
        for convolution in self.convolutions[:-1]:
            known.append(F.leaky_relu(convolution(torch.cat(known, 1)), SLOPE))
        added: Tensor = self.convolutions[-1](torch.cat(known, 1))
        return x + RESIDUAL * added


class ResidualDenseBlock(nn.Module):
    """Three dense blocks in a row, added to the input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(DenseBlock(width, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same shape."""
        added: Tensor = self.blocks(x)
        return x + RESIDUAL * added


class DenseRestorer(nn.Module):
    """(B, 3, H, W) degraded to (B, 3, H, W) restored, both nominally in [-1, 1], sides multiples of 4."""

    def __init__(self, num_blocks: int, width: int = 64, growth: int = 32) -> None:
        super().__init__()
        folded = 3 * SHUFFLE**2
        self.conv_in = nn.Conv2d(folded, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualDenseBlock(width, growth) for _ in range(num_blocks))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.conv_fine = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)
        self.conv_kept = nn.Conv2d(width, folded, 3, padding=1)
        nn.init.zeros_(self.conv_kept.weight)
        nn.init.constant_(self.conv_kept.bias, KEPT_AT_FIRST)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The painted picture, mixed with the share of the input that is kept."""
        # Channels last: measured twice as fast on processors in float32.
        folded = F.pixel_unshuffle(x, SHUFFLE).contiguous(memory_format=torch.channels_last)
        first = h = self.conv_in(folded)
        for block in self.blocks:
            h = block(h)
        h = first + self.conv_body(h)
        kept = torch.sigmoid(F.pixel_shuffle(self.conv_kept(h), SHUFFLE))
        painted = self._painted(h)
        return painted + kept * (x - painted)

    def _painted(self, h: Tensor) -> Tensor:
        for convolution in self.conv_up:
            h = F.leaky_relu(convolution(F.interpolate(h, scale_factor=2.0, mode="nearest")), SLOPE)
        painted: Tensor = self.conv_out(F.leaky_relu(self.conv_fine(h), SLOPE))
        return painted


HALO = 128
"""Picture pixels beyond which next to nothing influences a restored pixel: what tiles overlap by. The convolutions
could see 60 of them a block; measured on the bundled weights, what lies farther changes an eighth of a grey level."""
