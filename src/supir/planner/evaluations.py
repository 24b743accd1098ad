"""Which parts of the networks each step of a restoration runs: the real stack of wrappers over networks of no size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from supir.options import RestoreOptions
from supir.restoration.conditioning import Conditions
from supir.restoration.restorer import Restorer
from supir.restoration.schedules import noise_schedule
from supir.sampling.noise import SampleNoise

NUM_OUTER = 3
NUM_FEATURES = 10


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one step runs of each tile."""

    branches: int
    """1, or 2 where text guidance is on."""
    unet_outer: bool
    """The outermost blocks alone, the deep features being kept ones."""
    adaptor: str
    """``whole``, ``outer`` or ``kept``."""


class _Recorder:
    """Stands for UNet and adaptor; notes what it is asked for."""

    dtype = torch.float32
    config = SimpleNamespace(prediction_type="epsilon")
    up_blocks = (SimpleNamespace(resnets=[None] * NUM_OUTER),)

    def __init__(self) -> None:
        self.found: list[Evaluation] = []
        self._adaptor = "kept"

    def adaptor(self, sample: Tensor, *conditions: Any, outer_only: bool = False) -> list[Tensor]:
        self._adaptor = "outer" if outer_only else "whole"
        return [sample] * (NUM_OUTER if outer_only else NUM_FEATURES)

    def __call__(self, sample: Tensor, *conditions: Any, deep: Tensor | None, **more: Any) -> Any:
        self.found.append(Evaluation(branches=len(sample), unet_outer=deep is not None, adaptor=self._adaptor))
        self._adaptor = "kept"
        return SimpleNamespace(sample=torch.zeros_like(sample), deep=sample)


def evaluations(options: RestoreOptions) -> Counter[Evaluation]:
    """How often a restoration with these options runs what, for one picture of one tile."""
    recorder: Any = _Recorder()
    coder = SimpleNamespace(config=SimpleNamespace(block_out_channels=(1,)))
    restorer = Restorer(autoencoder=coder, unet=recorder, adaptor=recorder.adaptor, options=options)
    latent, word = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1)
    conditions = Conditions(tokens=word[None], vector=word, negative_tokens=word[None], negative_vector=word)
    schedule = noise_schedule(options)
    denoise = restorer.denoiser(latent, latent, conditions, schedule)
    restorer.sample(denoise, latent, schedule, SampleNoise([0]))
    return Counter(recorder.found)
