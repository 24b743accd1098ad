"""Linear layers and convolutions whose weights are stored in 8 bits and widened anew in every call.

Half the memory of 16-bit weights for a pass over the weights in each call: the larger the picture, the less that
counts. Products and sums are those of the input's own type.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supir.errors import OptionError

KINDS = ("int8", "float8")
"""int8: 255 even steps from the smallest to the largest weight of a channel; float8: e4m3, finer near zero."""

KEPT_WHOLE = ("conv_in", "conv_out", "hint_conv", "time_embedding", "add_embedding")
"""Small layers through which everything goes; they stay as they are."""

_VALUES_AT_ONCE = 2**20
"""Weights are narrowed in pieces: large passing tensors would leave holes between those that stay."""
_LARGEST = {"int8": 127.0, "float8": 448.0}
_SIGN_EXPONENT_MANTISSA = -30736
"""The bits 15 and 4 to 10 of an int16."""
_REBIAS = 2.0**120
"""bfloat16's exponent counts from 127, that of e4m3 from 7."""


class _Quantized(nn.Module):
    """What the two layers share: ``weight`` holds 8 bits a value, as int8 whichever kind they mean.

    So neither ``to`` nor whoever asks for the dtype of a network takes them for its arithmetic's type.
    """

    kind: str
    scale: Tensor
    weight: nn.Parameter

    def become(self, kind: str) -> None:
        """Change a layer of the plain class in place; a weight on the meta device stays there."""
        self.kind = kind
        weight = self.weight
        self.register_buffer("scale", weight.detach().new_empty(len(weight)))
        self.store(weight.detach())

    def store(self, weight: Tensor) -> None:
        """Take a weight of any floating type; each of its output channels gets a scale of its own."""
        stored = torch.empty_like(weight, dtype=torch.int8)
        scale = self.scale.new_empty(len(weight), device=weight.device)
        channels = max(1, _VALUES_AT_ONCE // weight[0].numel())
        for part, to, scales in zip(*(torch.split(of, channels) for of in (weight, stored, scale)), strict=True):
            values = part.float()
            # Rounded before it divides, so that what it will multiply is exactly undone.
            scales.copy_(values.flatten(1).abs().amax(1) / _LARGEST[self.kind])
            scales.masked_fill_(scales == 0, 1)
            to.copy_(self._eight_bits(values / self._per_channel(scales.float())))
        self.scale = scale
        self.weight = nn.Parameter(stored, requires_grad=False)

    def _eight_bits(self, values: Tensor) -> Tensor:
        if self.kind == "int8":
            return values.round_().clamp_(-127, 127).to(torch.int8)
        return values.clamp_(-448, 448).to(torch.float8_e4m3fn).view(torch.int8)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weight in a floating type."""
        scale = self._per_channel(self.scale.to(dtype))
        if self.kind == "int8":
            return torch.mul(self.weight, scale)
        if self.weight.device.type == "cpu" and dtype is not torch.float16:
            # torch's own conversion takes fifteen times as long on a processor.
            return torch.mul(e4m3_bits_as_bfloat16(self.weight), scale * _REBIAS)
        check_quantized(self.kind, self.weight.device)
        return self.weight.view(torch.float8_e4m3fn).to(dtype) * scale

    def _per_channel(self, scale: Tensor) -> Tensor:
        return scale.view(-1, *[1] * (self.weight.ndim - 1))


def check_quantized(kind: str | None, device: torch.device | str) -> None:
    """Refuse what a device cannot widen.

    Raises:
        OptionError: ``float8`` on Apple's GPUs, which have no such type.
    """
    if kind == "float8" and torch.device(device).type == "mps":
        raise OptionError("quantize is 'float8', which mps does not have; use int8 (--quantize int8), or the cpu")


def e4m3_bits_as_bfloat16(stored: Tensor) -> Tensor:
    """The bits of float8 e4m3 numbers, int8, as bfloat16 numbers 2 ** -120 times as large."""
    # Widening repeats the sign; four places further the exponent and the mantissa stand where bfloat16 has them.
    return stored.to(torch.int16).mul_(16).bitwise_and_(_SIGN_EXPONENT_MANTISSA).view(torch.bfloat16)


class QuantizedLinear(_Quantized, nn.Linear):  # type: ignore[misc]
    """``nn.Linear`` of 8-bit weights."""

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.Linear``'s."""
        return F.linear(x, self.dequantized(x.dtype), self.bias)


class QuantizedConv2d(_Quantized, nn.Conv2d):  # type: ignore[misc]
    """``nn.Conv2d`` of 8-bit weights."""

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.Conv2d``'s."""
        return self._conv_forward(x, self.dequantized(x.dtype), self.bias)


_PLAIN: dict[type[nn.Module], type[_Quantized]] = {nn.Linear: QuantizedLinear, nn.Conv2d: QuantizedConv2d}


def quantize_weights(network: nn.Module, kind: str) -> nn.Module:
    """Change the linear layers and convolutions of a network to a kind of ``KINDS``, in place; but ``KEPT_WHOLE``.

    Where weights are on the meta device, it is ready to be filled by ``_Quantized.store``.
    """
    for name, layer in network.named_modules():
        stored = _PLAIN.get(type(layer))
        if stored is not None and not set(name.split(".")) & set(KEPT_WHOLE):
            # The class changes, not the object: names, hooks and whoever holds the layer stay as they are.
            layer.__class__ = stored
            assert isinstance(layer, _Quantized)
            layer.become(kind)
    return network


def quantized_kind(network: nn.Module) -> str | None:
    """How a network's weights are stored: one of ``KINDS``, or None where they are as wide as its arithmetic."""
    return next((layer.kind for layer in network.modules() if isinstance(layer, _Quantized)), None)
