"""StepPreviews: small pictures of a restoration under way, for people who watch; the result does not depend on them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from supir.sampling.solvers import Step
from supir.tensors import memory

SIDE = 768
"""Pixels of the longer side, at most: a small latent decodes fast, and looks like the large one from afar."""
_SHARE = 4.0
"""After a glimpse, sampling goes on undisturbed for this many times as long as the glimpse took."""


class StepPreviewWarning(UserWarning):
    """Small pictures of a restoration under way could not be shown; the restoration goes on."""


class StepPreviews:
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
        self._next = float("inf")
        try:
            self._show(self._decoded(step.denoised[:1])[0])
        except Exception as error:  # what is only looked at must not cost the restoration
            warnings.warn(f"no more glimpses of this picture: {error}", StepPreviewWarning, stacklevel=1)
        else:
            end = time.perf_counter()
            self._next = end + _SHARE * (end - start)
            return
        memory.give_back()  # the restoration may still fit

    def _decoded(self, latent: Tensor) -> Tensor:
        config = self._autoencoder.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        ratio = SIDE / (max(latent.shape[-2:]) * factor)
        if ratio < 1:
            size = [max(1, round(side * ratio)) for side in latent.shape[-2:]]
            # On the processor: Apple's GPUs pool only to sizes that divide the latent's.
            latent = F.interpolate(latent.cpu(), size, mode="area").to(latent.device)
        latent = (latent / config.scaling_factor).to(self._autoencoder.dtype)
        pixels: Tensor = self._autoencoder.decode(latent).sample.float().cpu()
        return pixels
