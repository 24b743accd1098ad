"""Noise levels: the discrete table the networks were trained on, and the falling schedules the solvers walk down.

`sigma` is the standard deviation of the noise in a variance-exploding latent `x = clean + sigma * noise`. A schedule's
dtype is the dtype of all arithmetic on sigma: a bfloat16 schedule reproduces what the public code does by default
(reference section 14), a float32 one is what everything else uses.

Levels stay on the processor, whichever device the latent is on: what depends on them is decided there without waiting
for the device, and they go into its operations as plain numbers (`per_sample`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from supir.errors import OptionError
from supir.options import levels
from supir.options.levels import MAX_CHURN

NUM_TRAINING_SIGMAS = levels.NUM_TRAINING_LEVELS
#: The largest sigma as the public code writes it (the true one is 14.614641): the top of every ramp in the reference.
REFERENCE_SIGMA_MAX = 14.6146


def alphas_cumprod() -> Tensor:
    """The (1000,) float64 signal powers of SDXL's scaled-linear schedule (reference section 5)."""
    betas = torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), NUM_TRAINING_SIGMAS, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


def training_sigmas() -> Tensor:
    """The (1000,) float32 levels of SDXL, ascending, 0.0292 to 14.6146; index = timestep (reference section 5)."""
    alphas = alphas_cumprod()
    # Rounded to float32 before the square root, as the published weights were trained and sampled.
    return ((1.0 - alphas) / alphas).float().sqrt()


def ddpm_timesteps(num_steps: int) -> list[int]:
    """The `num_steps` training indices of an evenly spaced schedule, ascending: 999 always, 0 only with all 1000.

    Raises OptionError unless 1 <= num_steps <= 1000.
    """
    if not 1 <= num_steps <= NUM_TRAINING_SIGMAS:
        raise OptionError(
            f"num_steps is {num_steps}; the noise schedule allows 1 to {NUM_TRAINING_SIGMAS}. Choose from that range."
        )
    return levels.even_timesteps(num_steps)


def ddpm_sigmas(num_steps: int) -> Tensor:
    """The (num_steps + 1,) float32 levels of an even schedule, falling from 14.6146, then 0 (reference section 5)."""
    falling = training_sigmas()[ddpm_timesteps(num_steps)].flip(0)
    return torch.cat([falling, falling.new_zeros(1)])


def karras_sigmas(num_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """The (num_steps + 1,) float32 levels of EDM equation 5, falling from sigma_max to sigma_min, then 0.

    The reference takes sigma_min and sigma_max from `ddpm_sigmas(num_steps)` (section 7.3): see
    `reference_karras_sigmas`. Raises OptionError unless num_steps >= 1 and 0 < sigma_min <= sigma_max.
    """
    _check_range(num_steps, sigma_min, sigma_max)
    return torch.tensor([*levels.karras(num_steps, sigma_min, sigma_max, rho), 0.0])


def _check_range(num_steps: int, sigma_min: float, sigma_max: float) -> None:
    if num_steps < 1 or not 0 < sigma_min <= sigma_max:
        raise OptionError(
            f"num_steps {num_steps}, sigma_min {sigma_min}, sigma_max {sigma_max}: "
            "need num_steps >= 1 and 0 < sigma_min <= sigma_max."
        )


def reference_karras_sigmas(num_steps: int) -> Tensor:
    """The schedule of the public code's DPM++ sampler: Karras spacing between the ends of `ddpm_sigmas(num_steps)`."""
    ddpm = ddpm_sigmas(num_steps)
    return karras_sigmas(num_steps, float(ddpm[-2]), float(ddpm[0]))


def log_snr_sigmas(num_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """The (num_steps + 1,) float32 levels that fall from sigma_max to sigma_min by equal factors, then 0.

    Equal steps in log sigma, which is half the logarithm of the signal-to-noise ratio: what DPM-Solver takes (arXiv
    2206.00927, appendix), and the limit of EDM equation 5 for rho to infinity. Raises OptionError as `karras_sigmas`.
    """
    _check_range(num_steps, sigma_min, sigma_max)
    return torch.tensor([*levels.log_snr(num_steps, sigma_min, sigma_max), 0.0])


def trailing_sigmas(num_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """The (num_steps + 1,) float32 levels of `levels.trailing`, those of the training table to the bit, then 0.

    Raises OptionError as `karras_sigmas`.
    """
    _check_range(num_steps, sigma_min, sigma_max)
    table = training_sigmas()
    found = torch.tensor(levels.trailing(num_steps, sigma_min, sigma_max))
    nearest = table[(table[None] - found[:, None]).abs().argmin(dim=1)]
    exact = torch.where((nearest - found).abs() < 1e-5 * found, nearest, found)
    return torch.cat([exact, exact.new_zeros(1)])


def full_range_sigmas(num_steps: int, start_sigma: float | None = None, grid: str = "karras") -> Tensor:
    """Our schedule: from `start_sigma`, or the highest level of training, 14.6146, to 0.0292, then 0.

    `ddpm_sigmas` and `reference_karras_sigmas` leave the levels at 0.21 (16 steps) or 0.13 (50) and answer the rest in
    one step, which averages fine detail away. For Gaussian data of deviation 0.1 and 16 steps of `dpmpp_2m` they keep
    0.36 of it, this schedule 0.97. `grid` is "karras" or "log_snr", which docs/performance.md compares, or "trailing",
    which ends at a level that a distilled base was taught to answer in one step.
    """
    table = training_sigmas()
    spaced = {"karras": karras_sigmas, "log_snr": log_snr_sigmas, "trailing": trailing_sigmas}[grid]
    return spaced(num_steps, float(table[0]), start_sigma or float(table[-1]))


def starting_at(sigmas: Tensor, start_sigma: float) -> Tensor:
    """The falling levels `sigmas` cut to begin at exactly `start_sigma` (for a latent that is only noised that far)."""
    if not 0 < start_sigma <= float(sigmas[0]):
        raise OptionError(
            f"start_sigma is {start_sigma}; allowed is (0, {float(sigmas[0]):.4f}], up to the first level."
        )
    return torch.cat([sigmas.new_tensor([start_sigma]), sigmas[sigmas < start_sigma]])


def initial_latent(noise: Tensor, sigmas: Tensor, anchor: Tensor | None = None) -> Tensor:
    """Where sampling starts: pure noise scaled to the first level, or `anchor` noised to it.

    `noise` and `anchor` are (B, C, h, w); without an anchor the result is noise * sqrt(1 + sigma_0^2) (reference
    section 7).
    """
    sigma = sigmas[0]
    if anchor is None:
        return noise * torch.sqrt(1.0 + sigma**2)
    return anchor + sigma * noise


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Numbers, one per sample (B,), in the shape that multiplies `x` (B, C, h, w); maps (B, 1, h, w) as they are.

    Where all samples have the same, as a solver's do, that is the number itself: a tensor would first have to be copied
    to the device of `x`, and the copy waits for all that the device has still to do.
    """
    if values.ndim == 4:
        return values.to(x.device)
    known = values.device.type == "cpu" and torch.promote_types(values.dtype, x.dtype) is x.dtype
    if known and bool((values == values[0]).all()):
        return values[0]
    return values.to(x.device).view(-1, 1, 1, 1)


@dataclass(frozen=True, eq=False)
class Schedule:
    """The levels a solver walks down, and the (churned) level at which each step calls the denoiser.

    `sigmas` is (num_steps + 1,), falling (equal neighbours only for `edm_euler`); a last 0 is usual but not needed.
    With `s_churn` > 0 step i first raises its level by the factor 1 + gamma, gamma = min(s_churn / num_steps, sqrt(2) -
    1) where s_min <= sigma_i <= s_max (paper, Algorithm 1). Wrappers that follow the level *before* churn (reference
    section 15, quirk 4) ask `before_churn`.
    """

    sigmas: Tensor
    s_churn: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf

    def __post_init__(self) -> None:
        if self.sigmas.ndim != 1 or len(self.sigmas) < 2:
            raise OptionError(
                f"sigmas has shape {tuple(self.sigmas.shape)}; give (num_steps + 1,) with at least one step."
            )
        if (
            bool((self.sigmas[1:] > self.sigmas[:-1]).any())
            or float(self.sigmas[-1]) < 0
            or float(self.sigmas[-2]) <= 0
        ):
            raise OptionError(
                "sigmas must fall, every level above zero but the last, which may be 0. Sort them in descending order."
            )
        if self.s_churn < 0:
            raise OptionError(f"s_churn is {self.s_churn}; it must be 0 (no churn) or more.")

    @property
    def num_steps(self) -> int:
        """How many steps the schedule has."""
        return len(self.sigmas) - 1

    @cached_property
    def churned(self) -> Tensor:
        """(num_steps,) the levels sigma_hat at which the denoiser is called; equal to `sigmas[:-1]` without churn."""
        levels = self.sigmas[:-1]
        gamma = min(self.s_churn / self.num_steps, MAX_CHURN)
        inside = (levels >= self.s_min) & (levels <= self.s_max)
        # One scalar factor, not a tensor of factors: in bfloat16 the factor itself would be rounded.
        return torch.where(inside, levels * (1.0 + gamma), levels)

    def before_churn(self, sigma: Tensor) -> Tensor:
        """The level of the schedule behind each of `sigma` (B,): exact for every level a solver visits."""
        return self.sigmas.to(sigma)[self._step(sigma)]

    def after(self, sigma: Tensor) -> Tensor:
        """The level each step evaluated at `sigma` (B,) goes to."""
        return self.sigmas.to(sigma)[self._step(sigma) + 1]

    def _step(self, sigma: Tensor) -> Tensor:
        # Nearest rather than equal: a level that was rounded on its way is found all the same.
        return (self.churned.to(sigma)[None] - sigma[:, None]).abs().argmin(dim=1)
