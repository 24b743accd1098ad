"""Weights in 8 bits that have scales beside them, as ComfyUI writes them: multiplied in where they are read.

``X.weight`` in float8 with ``X.scale_weight`` or ``X.weight_scale``, one number or one for each output channel, stands
for their product. Scales of inputs belong to a way of multiplying, not to the weights, and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from supir.weights.checkpoint import TensorSource

_SCALE = re.compile(r"(.*\.)(?:scale_weight|weight_scale)")
_BESIDE = re.compile(r"(.*\.)?(?:scale_input|input_scale|scaled_fp8|comfy_quant)")
_FLOATS = ("F8_E4M3", "F8_E5M2", "F16", "BF16", "F32")


class Scaled:
    """A source whose scales are multiplied into the weights they belong to, in float32."""

    def __init__(self, source: TensorSource, scales: Mapping[str, str]) -> None:
        """``scales``: the key of each weight that has one, and that of its scale."""
        self._source, self._scales = source, scales
        used = set(scales.values())
        kept = [key for key in source.shapes if key not in used and not _BESIDE.fullmatch(key)]
        self.shapes: Mapping[str, tuple[int, ...]] = {key: source.shapes[key] for key in kept}
        self.dtypes: Mapping[str, str] = {key: "F32" if key in scales else source.dtypes[key] for key in kept}

    def tensor(self, key: str) -> Tensor:
        """The tensor `key`, times its scale."""
        tensor = self._source.tensor(key)
        if key not in self._scales:
            return tensor
        scale = self._source.tensor(self._scales[key]).float()
        return tensor.float() * scale.reshape(-1, *[1] * (tensor.ndim - 1))


def with_scales(source: TensorSource) -> TensorSource:
    """The source with the scales multiplied in that can be; others stay beside their weights, and are refused later."""
    scales = {}
    for key in source.shapes:
        match = _SCALE.fullmatch(key)
        weight = f"{match[1]}weight" if match else ""
        if weight in source.shapes and _fits(source, weight, key):
            scales[weight] = key
    if not scales and not any(_BESIDE.fullmatch(key) for key in source.shapes):
        return source
    return Scaled(source, scales) if _all_scaled(source, scales) else source


def _fits(source: TensorSource, weight: str, scale: str) -> bool:
    """Whether there is one scale, or one for each output channel, of a weight that it can be multiplied into."""
    shape, channels = source.shapes[scale], source.shapes[weight][:1]
    single = all(size == 1 for size in shape)
    by_channel = shape[:1] == channels and all(size == 1 for size in shape[1:])
    return source.dtypes[weight] in _FLOATS and bool(channels) and (single or by_channel)


def _all_scaled(source: TensorSource, scales: Mapping[str, str]) -> bool:
    return sum(_SCALE.fullmatch(key) is not None for key in source.shapes) == len(scales)
