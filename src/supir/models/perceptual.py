"""Distances between pictures in the features of networks that were trained to recognise things: LPIPS and DISTS.

They restore nothing: they judge results, and VGG16's features steer the training of small models. One file of
safetensors holds the weights; ``supir.weights.perceptual`` makes it from what the authors' ports publish.

LPIPS is version 0.1 (arXiv 1801.03924), DISTS is arXiv 2004.07728. Both take pictures (B, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-10
"""Added to lengths of features before dividing by them, as LPIPS does."""
STABLE = 1e-6
"""c1 and c2 of DISTS, equations 4 and 5."""


@dataclass(frozen=True)
class Layout:
    """The convolutions of a network: (in, out, kernel, stride, padding), and how its levels are cut."""

    convolutions: tuple[tuple[int, int, int, int, int], ...]
    levels: tuple[int, ...]
    """Number of convolutions of each level."""
    pooled: tuple[bool, ...]
    """Whether a level begins with a maximum over neighbours."""
    pool: tuple[int, int]
    """Its kernel and stride."""


def _stack(widths: tuple[int, ...], levels: tuple[int, ...]) -> tuple[tuple[int, int, int, int, int], ...]:
    outs = [width for width, number in zip(widths, levels, strict=True) for _ in range(number)]
    return tuple((before, after, 3, 1, 1) for before, after in zip([3, *outs[:-1]], outs, strict=True))


LAYOUTS: dict[str, Layout] = {
    "vgg16": Layout(
        _stack((64, 128, 256, 512, 512), (2, 2, 3, 3, 3)),
        levels=(2, 2, 3, 3, 3),
        pooled=(False, True, True, True, True),
        pool=(2, 2),
    ),
    "alexnet": Layout(
        ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)),
        levels=(1, 1, 1, 1, 1),
        pooled=(False, True, True, False, False),
        pool=(3, 2),
    ),
}
"""The two networks up to their last convolution."""


class Features(nn.Module):
    """A network's features after the rectifier that ends each of its five levels.

    ``smooth`` takes the root mean square under a Hann window where the network takes a maximum (DISTS).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, kind: str, *, smooth: bool = False) -> None:
        super().__init__()
        self.layout, self.smooth = LAYOUTS[kind], smooth
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel, stride, padding)
            for before, after, kernel, stride, padding in self.layout.convolutions
        )
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        ends = torch.tensor(self.layout.levels).cumsum(0).tolist()
        return tuple(self.layout.convolutions[end - 1][1] for end in ends)

    def forward(self, x: Tensor, levels: int = 5) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] to the features of the first ``levels`` levels, fine to coarse."""
        h, convolutions, found = (x - self.mean) / self.deviation, iter(self.convolutions), []
        for number, pooled in list(zip(self.layout.levels, self.layout.pooled, strict=True))[:levels]:
            if pooled:
                h = _smoothly_pooled(h) if self.smooth else F.max_pool2d(h, *self.layout.pool)
            for _ in range(number):
                h = F.relu(next(convolutions)(h))
            found.append(h)
        return found


def _smoothly_pooled(h: Tensor) -> Tensor:
    window = torch.tensor([0.25, 0.5, 0.25], dtype=h.dtype, device=h.device)
    kernel = torch.outer(window, window).expand(h.shape[1], 1, 3, 3)
    return (F.conv2d(h.square(), kernel, stride=2, padding=1, groups=h.shape[1]) + 1e-12).sqrt()


def normalised(features: Tensor) -> Tensor:
    """Features (B, C, h, w) of length 1 over the channels of each position."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + EPSILON)


class Lpips(nn.Module):
    """Learned perceptual distance, version 0.1, by AlexNet or VGG16: 0 for equal pictures, about 0.7 for strangers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.features = Features(kind)
        self.heads = nn.ParameterList(torch.zeros(width) for width in self.features.widths)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B,) distances of pictures (B, 3, H, W) in [-1, 1]."""
        return self.between(self.features(first), self.features(second))

    def between(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """(B,) distances of features, of all levels or of the first few."""
        total = first[0].new_zeros(len(first[0]))
        for head, a, b in zip(self.heads, first, second, strict=False):
            apart = (normalised(a) - normalised(b)).square()
            total = total + (apart * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return total


class Dists(nn.Module):
    """Distance in structure and texture by VGG16: 0 for equal pictures, below 1."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Features("vgg16", smooth=True)
        widths = [3, *self.features.widths]
        self.alpha = nn.ParameterList(torch.zeros(width) for width in widths)
        """Of the means, that is of texture, by level; the picture itself is the first."""
        self.beta = nn.ParameterList(torch.zeros(width) for width in widths)
        """Of the structure."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B,) distances of pictures (B, 3, H, W) in [-1, 1]."""
        levels = zip(
            self.alpha,
            self.beta,
            [first / 2 + 0.5, *self.features(first)],
            [second / 2 + 0.5, *self.features(second)],
            strict=True,
        )
        alike, weights = first.new_zeros(len(first)), first.new_zeros(())
        for alpha, beta, x, y in levels:
            mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
            variances = x.var((2, 3), correction=0) + y.var((2, 3), correction=0)
            covariance = (x * y).mean((2, 3)) - mean_x * mean_y
            texture = (2 * mean_x * mean_y + STABLE) / (mean_x.square() + mean_y.square() + STABLE)
            structure = (2 * covariance + STABLE) / (variances + STABLE)
            alike = alike + (alpha * texture + beta * structure).sum(1)
            weights = weights + alpha.sum() + beta.sum()
        return 1 - alike / weights
