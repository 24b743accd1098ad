"""A perceptual distance: features of the first blocks of EfficientNet-lite0, trained on ImageNet.

The weights steer training only and are not part of the bundled model; its card names them.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from supir.models.efficientnet import EfficientNetLite0

_COMPARED = (0, 2, 4)
"""Blocks whose outputs are compared: at a half, a quarter and an eighth of the size."""


class FeatureDistance(nn.Module):
    """Mean L1 distance of channel-normalised features; pictures (B, 3, H, W) in [-1, 1], the network's own range."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.network = EfficientNetLite0(torch.load(weights, weights_only=True, map_location="cpu"))

    def features(self, x: Tensor) -> list[Tensor]:
        """Normalised features after the blocks that are compared, fine to coarse."""
        found = list(islice(self.network.blocks(x), _COMPARED[-1] + 1))
        return [found[k] * (found[k].square().mean(1, keepdim=True) + 1e-3).rsqrt() for k in _COMPARED]

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The distance, a scalar, in full precision; the second picture is a target without gradient."""
        with torch.autocast(first.device.type, enabled=False):
            with torch.no_grad():
                target = self.features(second.float())
            pairs = zip(self.features(first.float()), target, strict=True)
            return torch.stack([(found - wanted).abs().mean() for found, wanted in pairs]).mean()
