"""One evaluation of the two networks, adaptor and UNet, with what of earlier steps may be taken again.

A row is one sample of one tile in one branch of text guidance; where something is kept, the condition names its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from supir.models.adaptor import SupirAdaptor
from supir.models.unet import SupirUNet
from supir.sampling.feature_cache import StepCache
from supir.tensors.tiling import Layout

CACHE_KEYS = "rows"
"""The entry of a condition that names the rows: a (B,) tensor of integers per tile, none of them twice."""


@dataclass(frozen=True, kw_only=True)
class GuidedNetwork:
    """The function that ``discrete_denoiser`` takes: calls adaptor and UNet, or as little of them as is needed.

    Deep features are those of ``SupirUNet.forward``. Where they are kept, the blocks that make them are not run, and of
    the adaptor only what the rest still reads.
    """

    unet: SupirUNet
    adaptor: SupirAdaptor
    control_scale: Callable[[Tensor], Tensor]
    """Strength of the connectors (B,) for the solver's levels (B,). Where it is 0 the adaptor is not run."""
    control_kept: StepCache = field(default_factory=lambda: StepCache(1))
    """Features of the adaptor: all, or after a step of kept deep features those that it read."""
    deep_kept: StepCache = field(default_factory=lambda: StepCache(1))

    def __call__(self, x: Tensor, timestep: Tensor, sigma: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The prediction (B, C, h, w), float32, for ``x`` scaled by c_in.

        ``condition`` holds ``tokens`` (B, tokens, features), ``vector`` (B, features), ``control``, the LQ latent, in
        the shape of ``x``, and ``rows`` where a cache is in use.
        """
        kind = self.unet.dtype
        x, tokens, hint = x.to(kind), condition["tokens"].to(kind), condition["control"].to(kind)
        vector = {"vector": condition["vector"].to(kind)}
        rows = condition[CACHE_KEYS].tolist() if CACHE_KEYS in condition else []
        deep = self.deep_kept.get(rows)
        scale = one_number(self.control_scale(sigma))
        control = [] if isinstance(scale, float) and scale == 0 else self.control_kept.get(rows)
        num_outer = len(self.unet.up_blocks[-1].resnets)
        if control is None or (deep is None and len(control) == num_outer):
            control = self.adaptor(x, timestep, tokens, vector, hint, outer_only=deep is not None)
            self.control_kept.put(rows, control)
        found = self.unet(
            x,
            timestep,
            tokens,
            added_cond_kwargs=vector,
            control=control,
            control_scale=scale,
            deep=None if deep is None else deep[0],
        )
        if deep is None:
            self.deep_kept.put(rows, [found.deep])
        prediction: Tensor = found.sample
        return prediction.float()


def one_number(values: Tensor) -> float | Tensor:
    """What all of (B,) are, where they lie on the processor and are alike: networks do less for numbers they know."""
    if values.device.type == "cpu" and bool((values == values[0]).all()):
        return float(values[0])
    return values


def cache_keys(latent: Tensor, layout: Layout) -> tuple[list[Tensor], list[Tensor]]:
    """Names for the rows of the negative and the positive branch (see ``CACHE_KEYS``): (B,) integers per tile."""
    down, across = layout(latent.shape[-2], latent.shape[-1], Fraction(1))
    # On the CPU whatever the device: they are keys, and reading them must not wait for a GPU.
    names = torch.arange(2 * len(down) * len(across) * len(latent)).view(2, -1, len(latent))
    return list(names[0]), list(names[1])
