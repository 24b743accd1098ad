"""The two restoring networks that the bundled model's degradation-robust encoder may have, and the generator of
Real-ESRGAN, from whose blocks the larger one begins.

Near full resolution one filter serves every position, so restoring is learned fast; in the latent each of 64 positions
would have to learn it anew. There is no normalisation: it would hide how strong an edge or the noise is.
"""

from __future__ import annotations

import itertools
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supir.models.enlargement import beyond_enlargement, enlarged, reduced, undoing
from supir.tensors.tiling import blended, tiled

FOLD = 2
"""The finest level of a ``RestorationUNet`` works on pixels of half the picture's size."""
SHUFFLE = 4
"""Picture pixels along one side of a pixel of a ``DenseRestorer``'s trunk."""
HALO = 128
"""Picture pixels beyond which next to nothing influences a ``DenseRestorer``'s pixel: what tiles overlap by. The
convolutions could see 60 of them a block; measured on the bundled weights, what lies farther changes an eighth of a
grey level. Of more than eight blocks it is ``halo_of``."""
PASS_TILE = 1536
"""Pixels along one side of what a ``DenseRestorer`` takes at a time where it sees the picture larger."""
SLOPE = 0.2
RESIDUAL = 0.2
"""What a block adds is multiplied by this."""
KEPT_AT_FIRST = -3.0
"""Logit of the share of the input that is kept before training, where it is nothing but an enlargement: 5 %."""
FINER_AT_FIRST = 150.0
"""What is added to that logit for the mean of what the input has beyond an enlargement (of 2, the range of pixels):
a half is kept where it is 2.5 grey levels."""


def halo_of(num_blocks: int) -> int:
    """``HALO`` of a network of so many blocks; twelve reach 192 pixels, measured: a quarter of a grey level at most."""
    return max(HALO, 16 * num_blocks)


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

    Coarser levels see noise and blocks that enlargement has spread.

    ``widths[k]`` channels and ``num_blocks[k]`` blocks, before and after what is coarser, at pixels of 2 ** (k + 1).
    Sides are multiples of the coarsest pixel.
    """

    def __init__(self, widths: tuple[int, ...], num_blocks: tuple[int, ...]) -> None:
        super().__init__()
        finer = list(itertools.pairwise(widths))
        self.conv_in = nn.Conv2d(3 * FOLD**2, widths[0], 3, padding=1)
        self.before = nn.ModuleList(_blocks(width, number) for width, number in zip(widths, num_blocks, strict=True))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in finer)
        self.up = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in finer)
        self.after = nn.ModuleList(_blocks(widths[k], num_blocks[k]) for k in range(len(finer)))
        self.conv_out = nn.Conv2d(widths[0], 3 * FOLD**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        self.conv_out.bias.data.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """The degraded picture with the network's correction added."""
        # Channels last: measured 10 to 30 % faster on processors, the more the larger the picture.
        pixels = F.pixel_unshuffle(x, FOLD).contiguous(memory_format=torch.channels_last)
        h = self._level(self.conv_in(pixels), 0)
        return x + F.pixel_shuffle(self.conv_out(h), FOLD)

    def _level(self, h: Tensor, level: int) -> Tensor:
        h = self.before[level](h)
        if level < len(self.down):
            coarse = self._level(self.down[level](h), level + 1)
            h = self.after[level](h + F.pixel_shuffle(self.up[level](coarse), 2))
        return h


def reach(num_blocks: tuple[int, ...]) -> int:
    """Picture pixels beyond which nothing influences a restored pixel."""
    total = 2 * FOLD
    for level, number in enumerate(num_blocks):
        pixel = FOLD * 2**level
        twice = 1 if level == len(num_blocks) - 1 else 2
        total += pixel * 2 * number * twice + 2 * pixel  # the last term: down and up look at whole coarser pixels
    return total


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


class Painter(nn.Module):
    """Blocks, and the convolutions that paint from the features behind them, at four times their size."""

    def __init__(self, num_blocks: int, width: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualDenseBlock(width, growth) for _ in range(num_blocks))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.conv_fine = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def painted(self, h: Tensor) -> Tensor:
        """Features (B, width, h, w) to a picture (B, 3, 4h, 4w)."""
        for convolution in self.conv_up:
            h = F.leaky_relu(convolution(F.interpolate(h, scale_factor=2.0, mode="nearest")), SLOPE)
        painted: Tensor = self.conv_out(F.leaky_relu(self.conv_fine(h), SLOPE))
        return painted


class RealEsrgan(Painter):
    """Real-ESRGAN's generator (arXiv 2107.10833): (B, 3, h, w) to (B, 3, 4h, 4w), both nominally in [-1, 1]."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__(num_blocks)
        self.conv_in = nn.Conv2d(3, self.conv_body.in_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class; not clamped."""
        first = h = self.conv_in(x / 2 + 0.5)  # its weights know [0, 1]
        for block in self.blocks:
            h = block(h)
        return self.painted(first + self.conv_body(h)) * 2 - 1


class PaintingEnd(Painter):
    """What paints from the features before the last block: that block, and all convolutions after it."""

    def __init__(self, num_blocks: int, width: int, growth: int, sees_finer: bool) -> None:
        super().__init__(num_blocks, width, growth)
        folded = 3 * SHUFFLE**2
        self.conv_kept = nn.Conv2d(width + folded * sees_finer, folded, 3, padding=1)
        nn.init.zeros_(self.conv_kept.weight)
        if sees_finer:
            nn.init.constant_(self.conv_kept.weight[:, width:, 1, 1], FINER_AT_FIRST / folded)
        nn.init.constant_(self.conv_kept.bias, KEPT_AT_FIRST)  # type: ignore[arg-type]

    def end(self, x: Tensor, finer: Tensor | None, first: Tensor, h: Tensor) -> Tensor:
        """The painted picture, mixed with the share that is kept of the input.

        Args:
            x: the input (B, 3, H, W).
            finer: what it has beyond an enlargement, folded (B, 48, H/4, W/4), where that is seen.
            first: features (B, width, H/4, W/4) before the trunk.
            h: those before the last block.
        """
        h = first + self.conv_body(self.blocks[-1](h))
        known = h if finer is None else torch.cat([h, finer.to(h)], 1)
        kept = torch.sigmoid(F.pixel_shuffle(self.conv_kept(known), SHUFFLE))
        painted = self.painted(h)
        return painted + kept * (x - painted)


class DenseRestorer(PaintingEnd):
    """(B, 3, H, W) degraded to (B, 3, H, W) restored, both nominally in [-1, 1], sides multiples of 4.

    Its form is ``RealEsrgan``'s with fewer blocks, so that it can begin from some of x4plus's own. That one enlarges
    four times; this one gets a picture of the size that is wanted and folds 4 x 4 pixels into channels, which costs as
    little and loses nothing. What the input already shows sharply need not be painted again: a learned share of it is
    kept at each pixel; where the network ``sees_finer``, that which an enlargement could not show helps to decide.

    It may have two ends: the vivid one, and a plain one that learned pixels alone and shares all of the trunk but the
    last block. Their pictures are mixed.
    """

    def __init__(
        self, num_blocks: int, width: int = 64, growth: int = 32, *, plain_end: bool = False, sees_finer: bool = False
    ) -> None:
        super().__init__(num_blocks, width, growth, sees_finer)
        self.sees_finer = sees_finer
        self.conv_in = nn.Conv2d(3 * SHUFFLE**2, width, 3, padding=1)
        self.plain = PaintingEnd(1, width, growth, sees_finer) if plain_end else None
        undoing()  # known from now on: the first picture is to cost what the others cost

    def forward(self, x: Tensor, detail: float = 1.0, zoom: int = 1) -> Tensor:
        """The restored picture.

        Args:
            detail: the share of the vivid end's, 0 to 1; without a plain end all of it.
            zoom: 4 or 2: it is seen so many times larger first, and what comes out is reduced; then twice as large; and
                then as it is. The first passes clean what is as fine as the photo; the last paints what is as soft as
                an enlargement by four, and leaves the rest if it sees it. In the other order blocks of JPEG become
                strokes.
        """
        layout = blended(PASS_TILE, 2 * halo_of(len(self.blocks)), fade=0, align=FOLD * SHUFFLE)
        in_tiles = tiled(partial(self._restored, detail=detail), layout)
        for larger in (4, 2):
            if larger <= zoom:
                x = reduced(in_tiles(enlarged(x, larger).to(x)), larger).to(x)
        return self._restored(x, detail)

    def _restored(self, x: Tensor, detail: float) -> Tensor:
        # Channels last: measured twice as fast on processors in float32.
        folded = F.pixel_unshuffle(x, SHUFFLE).contiguous(memory_format=torch.channels_last)
        finer = F.pixel_unshuffle(beyond_enlargement(x), SHUFFLE) if self.sees_finer else None
        first = h = self.conv_in(folded)
        for block in self.blocks[:-1]:
            h = block(h)
        if self.plain is None or detail >= 1:
            return self.end(x, finer, first, h)
        plain = self.plain.end(x, finer, first, h)
        return plain if detail <= 0 else torch.lerp(plain, self.end(x, finer, first, h), detail)

    @torch.no_grad()
    def begin_plain_end(self) -> None:
        """Let the plain end be as the vivid one, from which it learns on."""
        assert self.plain is not None
        ends = self.plain.state_dict()
        last = f"blocks.{len(self.blocks) - 1}."
        known = {name.replace(last, "blocks.0."): value for name, value in self.state_dict().items()}
        self.plain.load_state_dict({name: known[name] for name in ends})
