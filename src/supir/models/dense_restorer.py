"""The restoring network of the bundled model's E_dr: dense blocks at a quarter of the picture's size.

Its form is that of Real-ESRGAN x4plus's generator (arXiv 2107.10833) with fewer blocks, so that it can begin from some
of x4plus's own. That one enlarges four times; this one gets a picture of the size that is wanted and folds 4 x 4 pixels
into channels, which costs as little and loses nothing. What the input already shows sharply need not be painted
again: a learned share of it is kept at each pixel.

It may have two ends: the vivid one, and a plain one that learned pixels alone and shares all of the trunk but the last
block. Their pictures are mixed.
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


class PaintingEnd(nn.Module):
    """What paints from the features before the last block: that block, and all convolutions after it."""

    def __init__(self, num_blocks: int, width: int, growth: int) -> None:
        super().__init__()
        folded = 3 * SHUFFLE**2
        self.blocks = nn.ModuleList(ResidualDenseBlock(width, growth) for _ in range(num_blocks))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.conv_fine = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)
        self.conv_kept = nn.Conv2d(width, folded, 3, padding=1)
        nn.init.zeros_(self.conv_kept.weight)
        nn.init.constant_(self.conv_kept.bias, KEPT_AT_FIRST)  # type: ignore[arg-type]

    def end(self, x: Tensor, first: Tensor, h: Tensor) -> Tensor:
        """The painted picture, mixed with the share that is kept of the input.

        Args:
            x: the input (B, 3, H, W).
            first: features (B, width, H/4, W/4) before the trunk.
            h: those before the last block.
        """
        h = first + self.conv_body(self.blocks[-1](h))
        kept = torch.sigmoid(F.pixel_shuffle(self.conv_kept(h), SHUFFLE))
        for convolution in self.conv_up:
            h = F.leaky_relu(convolution(F.interpolate(h, scale_factor=2.0, mode="nearest")), SLOPE)
        painted: Tensor = self.conv_out(F.leaky_relu(self.conv_fine(h), SLOPE))
        return painted + kept * (x - painted)


class DenseRestorer(PaintingEnd):
    """(B, 3, H, W) degraded to (B, 3, H, W) restored, both nominally in [-1, 1], sides multiples of 4."""

    def __init__(self, num_blocks: int, width: int = 64, growth: int = 32, *, plain_end: bool = False) -> None:
        super().__init__(num_blocks, width, growth)
        self.conv_in = nn.Conv2d(3 * SHUFFLE**2, width, 3, padding=1)
        self.plain = PaintingEnd(1, width, growth) if plain_end else None

    def forward(self, x: Tensor, detail: float = 1.0) -> Tensor:
        """The restored picture.

        Args:
            x: the input.
            detail: share of the vivid end's picture, 0 to 1; without a plain end there is no other.
        """
        # Channels last: measured twice as fast on processors in float32.
        folded = F.pixel_unshuffle(x, SHUFFLE).contiguous(memory_format=torch.channels_last)
        first = h = self.conv_in(folded)
        for block in self.blocks[:-1]:
            h = block(h)
        if self.plain is None or detail >= 1:
            return self.end(x, first, h)
        plain = self.plain.end(x, first, h)
        return plain if detail <= 0 else torch.lerp(plain, self.end(x, first, h), detail)

    @torch.no_grad()
    def begin_plain_end(self) -> None:
        """Let the plain end be as the vivid one, from which it learns on."""
        assert self.plain is not None
        ends = self.plain.state_dict()
        last = f"blocks.{len(self.blocks) - 1}."
        known = {name.replace(last, "blocks.0."): value for name, value in self.state_dict().items()}
        self.plain.load_state_dict({name: known[name] for name in ends})


HALO = 128
"""Picture pixels beyond which next to nothing influences a restored pixel: what tiles overlap by. The convolutions
could see 60 of them a block; measured on the bundled weights, what lies farther changes an eighth of a grey level."""
