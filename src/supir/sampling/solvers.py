"""Solvers: each walks a latent down a schedule by calling one function `(x, sigma) -> denoised`.

`x` is (B, C, h, w), `sigma` is (B,) on the processor, `denoised` is the clean latent expected under the noise `sigma`,
in the shape of `x`. What else a restoration needs (text guidance, restoration guidance, tiles) is a wrapper of that
function, so every solver honours it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from supir.errors import OptionError
from supir.sampling.noise import NoiseSource
from supir.sampling.sigmas import Schedule, per_sample

Denoiser = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Step:
    """What a solver reports after each step. To cancel a run, raise from the callback."""

    index: int
    """Of the step just done, 0 to num_steps - 1."""
    num_steps: int
    sigma: float
    """The level the latent `x` is at now; 0 after the last step."""
    denoised: Tensor
    """(B, C, h, w) the denoiser's answer in this step."""
    x: Tensor
    """(B, C, h, w) the latent after this step."""


StepCallback = Callable[[Step], None]


def edm_euler(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    noise: NoiseSource | None = None,
    *,
    s_noise: float = 1.0,
    on_step: StepCallback | None = None,
) -> Tensor:
    """First-order stochastic sampler: Algorithm 1 of the paper, without its restoration term, which is a wrapper of
    `denoise`.

    `x` (B, C, h, w) is at the level `schedule.sigmas[0]`. Noise is drawn only where the schedule churns, scaled by
    `s_noise`. Raises OptionError when the schedule churns and no noise source is given. (RestoreEDMSampler; reference
    section 7.1.)
    """
    for index in range(schedule.num_steps):
        sigma, sigma_hat, next_sigma = _levels(schedule, index, x)
        if schedule.churned[index] > schedule.sigmas[index]:
            added = per_sample((sigma_hat**2 - sigma**2) ** 0.5, x)
            x = x + _draw(noise, x) * s_noise * added
        denoised = denoise(x, sigma_hat)
        slope = (x - denoised) / per_sample(sigma_hat, x)
        x = x + per_sample(next_sigma - sigma_hat, x) * slope
        _report(on_step, schedule, index, denoised, x)
    return x


def dpmpp_2m(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    noise: NoiseSource | None = None,
    *,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_on_first_step: bool = True,
    on_step: StepCallback | None = None,
) -> Tensor:
    """Second-order multistep sampler, DPM-Solver++(2M): deterministic for eta 0, its stochastic form for eta in (0, 1].

    `x` (B, C, h, w) is at the level `schedule.sigmas[0]`; a step to level 0 returns `denoised` itself. The schedule's
    churn must be 0: here `eta` sets the noise. The public code omits the noise of the first step while shrinking the
    latent for it, which loses variance; `noise_on_first_step=False` with `reference_karras_sigmas` reproduces that
    (RestoreDPMPP2MSampler; reference section 7.3). Raises OptionError when the schedule churns, eta is negative, or eta
    > 0 and no noise source is given.
    """
    if schedule.s_churn > 0 or eta < 0 or bool((schedule.sigmas.diff() == 0).any()):
        raise OptionError(
            f"s_churn is {schedule.s_churn} and eta {eta}; dpmpp_2m needs s_churn 0, eta 0 or more "
            "(its noise is set by eta) and no level of the schedule twice."
        )
    earlier: tuple[Tensor, Tensor] | None = None
    for index in range(schedule.num_steps):
        sigma, _, next_sigma = _levels(schedule, index, x)
        denoised = denoise(x, sigma)
        if schedule.sigmas[index + 1] == 0:
            x = denoised
        else:
            h = (sigma / next_sigma).log()
            decay = per_sample(next_sigma / sigma * torch.exp(-eta * h), x)
            target = denoised
            if earlier is not None:
                # Linear extrapolation of `denoised` in log sigma to the middle of the step makes it second order.
                earlier_denoised, earlier_h = earlier
                weight = per_sample(h / (2 * earlier_h), x)
                target = (1 + weight) * denoised - weight * earlier_denoised
            x = decay * x - per_sample(torch.expm1(-h - eta * h), x) * target
            if eta > 0 and (index > 0 or noise_on_first_step):
                spread = next_sigma * torch.sqrt(-torch.expm1(-2 * eta * h)) * s_noise
                x = x + _draw(noise, x) * per_sample(spread, x)
            earlier = (denoised, h)
        _report(on_step, schedule, index, denoised, x)
    return x


def lcm(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    noise: NoiseSource | None = None,
    *,
    s_noise: float = 1.0,
    on_step: StepCallback | None = None,
) -> Tensor:
    """Multistep sampling of consistency models: each answer is noised anew to the next level (arXiv 2303.01469,
    Algorithm 1; latent consistency models, arXiv 2310.04378).

    `x` (B, C, h, w) is at the level `schedule.sigmas[0]`. The schedule's churn must be 0: nothing of `x` outlives a
    step but by the answer to it. Raises OptionError when the schedule churns, or has two steps and no noise source is
    given.
    """
    if schedule.s_churn > 0:
        raise OptionError(f"s_churn is {schedule.s_churn}; lcm needs 0: it draws all noise anew in each step.")
    for index in range(schedule.num_steps):
        sigma, _, next_sigma = _levels(schedule, index, x)
        denoised = x = denoise(x, sigma)
        if schedule.sigmas[index + 1] > 0:
            x = denoised + _draw(noise, x) * per_sample(next_sigma * s_noise, x)
        _report(on_step, schedule, index, denoised, x)
    return x


def _levels(schedule: Schedule, index: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """This step's level, its churned level and the next level, one per sample, where the schedule is."""
    levels = (schedule.sigmas[index], schedule.churned[index], schedule.sigmas[index + 1])
    sigma, sigma_hat, next_sigma = (level.expand(len(x)) for level in levels)
    return sigma, sigma_hat, next_sigma


def _draw(noise: NoiseSource | None, x: Tensor) -> Tensor:
    if noise is None:
        raise OptionError(
            "this run adds noise (s_churn > 0 or eta > 0) but has no noise source; pass noise=SampleNoise(seeds)."
        )
    return noise(x)


def _report(on_step: StepCallback | None, schedule: Schedule, index: int, denoised: Tensor, x: Tensor) -> None:
    if on_step is not None:
        on_step(Step(index, schedule.num_steps, float(schedule.sigmas[index + 1]), denoised, x))
