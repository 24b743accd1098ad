"""GGUF files of SDXL: weights quantised by blocks, widened one at a time as they are asked for.

Converters that come from llama.cpp keep names and order of the original, so that a UNet of such a file is one as any
other once it is widened. diffusers' own reading of GGUF keeps linear layers quantised, but neither convolutions nor
weights that were stored in another shape, of which SDXL's files are full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supir.errors import MissingExtraError, WeightsError

_PLAIN = {"F64": "F64", "F32": "F32", "F16": "F16"}
"""Types that are stored as numbers, as safetensors calls them; all others are widened to float32."""
_SHAPE_BESIDE = "comfy.gguf.orig_shape."
"""Before a weight's name: the shape that it had, where blocks asked for another."""


class GgufFile:
    """A GGUF file as a source (``TensorSource``); whatever is quantised in it comes in float32.

    Raises:
        MissingExtraError: gguf is not installed.
        WeightsError: it is damaged, or holds weights of a type that is not known.
    """

    def __init__(self, path: Path) -> None:
        try:
            from gguf import GGUFReader
        except ImportError as error:
            raise MissingExtraError("gguf", "gguf", "a GGUF file") from error
        self._path = path
        try:
            self._reader = GGUFReader(path)
            self._tensors = {each.name: each for each in self._reader.tensors}
            self.shapes: Mapping[str, tuple[int, ...]] = {name: self._shape(name) for name in self._tensors}
        except Exception as error:  # its reader checks little, so that a damaged file may raise anything
            raise self._damaged(error) from error
        self.dtypes: Mapping[str, str] = {
            name: _PLAIN.get(each.tensor_type.name, "F32") for name, each in self._tensors.items()
        }

    def tensor(self, key: str) -> Tensor:
        """The tensor `key`.

        Raises:
            WeightsError: it cannot be widened.
        """
        from gguf.quants import dequantize

        each = self._tensors[key]
        try:
            plain = each.tensor_type.name in _PLAIN
            numbers = np.array(each.data) if plain else dequantize(each.data, each.tensor_type)
            return torch.from_numpy(numbers).reshape(self.shapes[key])
        except (NotImplementedError, ValueError, TypeError) as error:
            raise WeightsError(
                f"{self._path}: {key} is of type {each.tensor_type.name}, which cannot be read ({error}); give the"
                " original in .safetensors, with 16 or 32 bits a weight"
            ) from error

    def _shape(self, name: str) -> tuple[int, ...]:
        each: Any = self._tensors[name]
        beside = self._reader.get_field(_SHAPE_BESIDE + name)
        if beside is None:
            return tuple(int(side) for side in reversed(each.shape))
        shape = tuple(int(side) for side in beside.contents())
        if math.prod(shape) != int(each.n_elements):
            raise ValueError(f"{name} has {each.n_elements} numbers, and is said to have been of shape {shape}")
        return shape

    def _damaged(self, error: Exception) -> WeightsError:
        reason = str(error)[:200] or type(error).__name__
        return WeightsError(f"{self._path}: a damaged or truncated GGUF file ({reason}); fetch it again")
