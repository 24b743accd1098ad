"""Group norms whose statistics are those of the whole picture, whichever tile goes through.

What a network normalises is intercepted while it runs, in the thread that runs it. Its modules stay as they are, so
hooks that bring weights to a device and take them away again do so undisturbed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Statistics = tuple[Tensor, Tensor]
"""Mean and variance, (B, groups) each, float32."""

_VALUES_AT_ONCE = 2**24
"""16-bit numbers are widened in pieces: a whole feature map in float32 would double what a decoding takes."""


def shared_group_statistics(run: Callable[[Tensor], Tensor], sample: Tensor) -> Callable[[Tensor], Tensor]:
    """``run``, a pass through a network, with the group norms' statistics of ``run(sample)``.

    A tile's own statistics would shift its colours and contrast against its neighbours'. ``sample`` is something like
    the whole picture (see ``supir.tensors.tiling.mosaic``), with the batch of the tiles. Each pass must reach the same
    norms in the same order.
    """
    seen: list[Statistics] = []

    def look(x: Tensor, num_groups: int) -> None:
        seen.append(statistics([x], num_groups))

    with _GroupNorms(look):
        run(sample)

    def alike(part: Tensor) -> Tensor:
        following = iter(seen)
        with _GroupNorms(lambda x, num_groups: next(following, None)):
            return run(part)

    return alike


def normed_together(norm: Callable[[Tensor], Tensor], parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """Each of the parts (B, C, ...) through one group norm, with the statistics of all of them (see ``statistics``)."""
    found: list[Statistics] = []

    def of_all(x: Tensor, num_groups: int) -> Statistics:
        if not found:
            found.append(statistics(parts, num_groups))
        return found[0]

    for part in parts:
        with _GroupNorms(of_all):
            normed = norm(part)
        yield normed


def statistics(parts: Sequence[Tensor], num_groups: int) -> Statistics:
    """Mean and variance of each group of channels of (B, C, ...), in float32.

    Of several parts the averages of both, weighted by pixels; the spread between the parts' means is not added.
    """
    found = []
    for part in parts:
        groups = part.reshape(len(part), num_groups, -1)
        pieces = [torch.var_mean(piece.float(), -1, correction=0) for piece in torch.split(groups, _step(groups), 1)]
        found.append(tuple(torch.cat(each, 1) for each in zip(*pieces, strict=True)))
    if len(found) == 1:
        variance, mean = found[0]
        return mean, variance
    sizes = [part[0, 0].numel() for part in parts]
    variance, mean = (
        torch.stack([each * (size / sum(sizes)) for each, size in zip(of_parts, sizes, strict=True)]).sum(0)
        for of_parts in zip(*found, strict=True)
    )
    return mean, variance


def normalised(x: Tensor, found: Statistics, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """(B, C, ...) normalised with these statistics, scaled and shifted per channel; calculated in float32."""
    mean, variance = (each.repeat_interleave(x.shape[1] // each.shape[1], 1) for each in found)
    factor = (variance + eps).rsqrt()
    if weight is not None:
        factor = weight.float() * factor
    shift = -mean * factor
    if bias is not None:
        shift = bias.float() + shift
    shape = (*factor.shape, *(1,) * (x.ndim - 2))
    factor, shift = factor.view(shape), shift.view(shape)
    if x.dtype is torch.float32:
        return torch.addcmul(shift, x, factor)
    result, step = torch.empty_like(x), _step(x)
    for start in range(0, x.shape[1], step):
        here = (slice(None), slice(start, start + step))
        result[here] = torch.addcmul(shift[here], x[here].float(), factor[here])
    return result


def _step(x: Tensor) -> int:
    """Of dimension 1, how much makes no more than so many values."""
    return x.shape[1] if x.dtype is torch.float32 else max(1, _VALUES_AT_ONCE * x.shape[1] // x.numel())


class _GroupNorms(TorchFunctionMode):
    """While this is open, ``statistics_of`` is asked for the statistics of each group norm; None leaves it its own."""

    def __init__(self, statistics_of: Callable[[Tensor, int], Statistics | None]) -> None:
        super().__init__()
        self._statistics_of = statistics_of

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.group_norm:
            return func(*args, **(kwargs or {}))
        return self._normed(*args, **(kwargs or {}))

    def _normed(
        self, x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        found = self._statistics_of(x, num_groups)
        if found is None:
            return F.group_norm(x, num_groups, weight, bias, eps)
        return normalised(x, found, weight, bias, eps)
