"""The restoring network of the bundled model's degradation-robust encoder.

Near full resolution one filter serves every position, so restoring is learned fast; in the latent each of 64 positions
would have to learn it anew. Coarser levels see noise and blocks that enlargement has spread. There is no
normalisation: it would hide how strong an edge or the noise is.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHUFFLE = 2
"""The finest level works on pixels of half the picture's size."""


class PlainBlock(nn.Module):
    """x + conv(ReLU(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.conv_out.weight, std=0.1 / channels**0.5)
        self.conv_out.bias.data.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        out: Tensor = x + self.conv_out(F.relu(self.conv_in(x)))
        return out


def _blocks(width: int, number: int) -> nn.Sequential:
    return nn.Sequential(*(PlainBlock(width) for _ in range(number)))


class RestorationUNet(nn.Module):
    """(B, 3, H, W) degraded to (B, 3, H, W) restored, both nominally in [-1, 1]; the identity before training.

    ``widths[k]`` channels and ``num_blocks[k]`` blocks, before and after what is coarser, at pixels of 2 ** (k + 1).
    Sides are multiples of the coarsest pixel.
    """

    def __init__(self, widths: tuple[int, ...], num_blocks: tuple[int, ...]) -> None:
        super().__init__()
        finer = list(itertools.pairwise(widths))
        self.conv_in = nn.Conv2d(3 * SHUFFLE**2, widths[0], 3, padding=1)
        self.before = nn.ModuleList(_blocks(width, number) for width, number in zip(widths, num_blocks, strict=True))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in finer)
        self.up = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in finer)
        self.after = nn.ModuleList(_blocks(widths[k], num_blocks[k]) for k in range(len(finer)))
        self.conv_out = nn.Conv2d(widths[0], 3 * SHUFFLE**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        self.conv_out.bias.data.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """The degraded picture with the network's correction added."""
        # Channels last: measured 10 to 30 % faster on processors, the more the larger the picture.
        pixels = F.pixel_unshuffle(x, SHUFFLE).contiguous(memory_format=torch.channels_last)
        h = self._level(self.conv_in(pixels), 0)
        return x + F.pixel_shuffle(self.conv_out(h), SHUFFLE)

    def _level(self, h: Tensor, level: int) -> Tensor:
        h = self.before[level](h)
        if level < len(self.down):
            coarse = self._level(self.down[level](h), level + 1)
            h = self.after[level](h + F.pixel_shuffle(self.up[level](coarse), 2))
        return h


def reach(num_blocks: tuple[int, ...]) -> int:
    """Picture pixels beyond which nothing influences a restored pixel."""
    total = 2 * SHUFFLE
    for level, number in enumerate(num_blocks):
        pixel = SHUFFLE * 2**level
        twice = 1 if level == len(num_blocks) - 1 else 2
        total += pixel * 2 * number * twice + 2 * pixel  # the last term: down and up look at whole coarser pixels
    return total
