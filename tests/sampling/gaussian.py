"""Data whose best denoiser and whole sampling path are known in closed form: a Gaussian."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MEAN, SPREAD = 0.7, 0.5
START, END = 10.0, 0.1


def denoised(x: Tensor, sigma: Tensor) -> Tensor:
    """The expected clean value, if clean values are normal around MEAN with deviation SPREAD."""
    variance = sigma.to(x).view(-1, 1, 1, 1) ** 2
    return (SPREAD**2 * x + variance * MEAN) / (SPREAD**2 + variance)


def exact(x: Tensor, start: float = START, end: float = END) -> Tensor:
    """Where the probability flow leads a latent `x` from the level `start` to `end`."""
    return MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + end**2) / (SPREAD**2 + start**2))


def levels(num_steps: int) -> Tensor:
    """Float64 levels from START to END, even in their logarithm, without a trailing 0."""
    return torch.linspace(math.log(START), math.log(END), num_steps + 1, dtype=torch.float64).exp()


def noised(num_values: int, sigma: float, seed: int = 0) -> Tensor:
    """(num_values, 1, 1, 1) float64 samples of the data under noise of `sigma`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(num_values, 1, 1, 1, generator=generator, dtype=torch.float64)
    return MEAN + math.sqrt(SPREAD**2 + sigma**2) * drawn
