"""Sources of unit normal noise: functions `(like) -> noise` of the shape, dtype and device of `like` (B, C, h, w).

Every sample has its own generator, so a seed gives the same picture alone, in a batch and under any tiling: noise is
always drawn for the whole latent of one sample. Nothing touches the global generator.

About the public code's second-order sampler: it draws from a Brownian tree over [sigma_min, sigma_max] and divides each
increment by the square root of its interval. Its steps cover disjoint intervals, whose increments are independent, so
at the visited levels those values have exactly the distribution of independent unit normals, which is what
`SampleNoise` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from supir.errors import OptionError

NoiseSource = Callable[[Tensor], Tensor]


class SampleNoise:
    """Unit normals from one CPU generator per sample, in float32, then moved: the same on every device.

    `seeds` holds one integer per sample of the batch.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        if not seeds:
            raise OptionError("seeds is empty; give one seed per sample of the batch.")
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def __call__(self, like: Tensor) -> Tensor:
        """Draw the next noise for the whole batch. Raises OptionError unless there is one seed per sample."""
        if len(like) != len(self._generators):
            raise OptionError(
                f"batch of {len(like)} samples but {len(self._generators)} seeds; give one seed per sample."
            )
        drawn = [torch.randn(like.shape[1:], generator=generator) for generator in self._generators]
        return torch.stack(drawn).to(like)
