"""Glimpses: small pictures of a restoration under way, for people who watch; the result does not depend on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from supir.sampling.solvers import Step

__all__ = ["SIDE", "Glimpses"]

SIDE = 768
"""Pixels of the longer side, at most: a small latent decodes fast, and looks like the large one from afar."""
_SHARE = 4.0
"""After a glimpse, sampling goes on undisturbed for this many times as long as the glimpse took."""


class Glimpses:
    """Called after each step; shows what the steps aim at, without taking more than a fifth of the time.

    Args:
        autoencoder: decodes; one that is moved between devices for every use is left alone, and nothing is shown.
        show: given (3, h, w) near [-1, 1]: the whole working size, padding included, made small.
    """

    def __init__(self, autoencoder: Any, show: Callable[[Tensor], None]) -> None:
        self._autoencoder, self._show = autoencoder, show
        self._next = float("inf") if hasattr(autoencoder, "_hf_hook") else 0.0

    def __call__(self, step: Step) -> None:
        """A step is done. The last one shows nothing: the result follows."""
        start = time.perf_counter()
        if start < self._next or step.index + 1 == step.num_steps:
            return
        try:
            self._show(self._decoded(step.denoised[:1])[0])
        except (MemoryError, torch.OutOfMemoryError):  # the restoration may still fit
            self._next = float("inf")
            return
        end = time.perf_counter()
        self._next = end + _SHARE * (end - start)

    def _decoded(self, latent: Tensor) -> Tensor:
        config = self._autoencoder.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        ratio = SIDE / (max(latent.shape[-2:]) * factor)
        if ratio < 1:
            size = [max(1, round(side * ratio)) for side in latent.shape[-2:]]
            latent = F.interpolate(latent, size, mode="area")
        latent = (latent / config.scaling_factor).to(self._autoencoder.dtype)
        pixels: Tensor = self._autoencoder.decode(latent).sample.float().cpu()
        return pixels
