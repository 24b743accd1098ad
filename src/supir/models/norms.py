"""Group norms whose statistics are those of the whole picture, whichever tile goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

Statistics = tuple[Tensor, Tensor]
"""Mean and variance, (B, groups) each."""


@contextmanager
def common_norms(network: nn.Module, sample: Callable[[], object]) -> Iterator[None]:
    """While this is open, the group norms of a network use what they saw when ``sample`` ran it.

    A tile's own statistics would shift its colours and contrast against its neighbours'. ``sample`` calls the network
    with something like the whole picture (see ``supir.tiling.mosaic``); norms that it does not reach keep their own.
    The batch must be as large as the sample's.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    seen: dict[nn.GroupNorm, Statistics] = {}

    def look(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.GroupNorm)
        seen[norm] = statistics(given[0], norm.num_groups)

    handles = [norm.register_forward_pre_hook(look) for norm in norms]
    try:
        sample()
    finally:
        for handle in handles:
            handle.remove()
    try:
        for norm, found in seen.items():
            norm.forward = partial(normalised, norm, found)  # type: ignore[method-assign]
        yield
    finally:
        for norm in seen:
            vars(norm).pop("forward", None)


def statistics(x: Tensor, num_groups: int) -> Statistics:
    """Mean and variance of each group of channels of (B, C, ...), in float32."""
    variance, mean = torch.var_mean(x.reshape(len(x), num_groups, -1).float(), -1, correction=0)
    return mean, variance


def normalised(norm: nn.GroupNorm, found: Statistics, x: Tensor) -> Tensor:
    """``norm`` of (B, C, ...) with these statistics."""
    mean, variance = (each.repeat_interleave(norm.num_channels // norm.num_groups, 1) for each in found)
    factor = norm.weight.float() * (variance + norm.eps).rsqrt()
    shift = norm.bias.float() - mean * factor
    shape = (*factor.shape, *(1,) * (x.ndim - 2))
    return x * factor.view(shape).to(x.dtype) + shift.view(shape).to(x.dtype)
