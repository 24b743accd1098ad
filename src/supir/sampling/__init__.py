"""Sampling: noise schedules, denoisers and their wrappers, solvers, noise. Knows no network: it is handed one."""

from __future__ import annotations

from supir.sampling.denoiser import (
    Condition,
    ConditionedDenoiser,
    Ramp,
    discrete_denoiser,
    in_tiles,
    linear_in_sigma,
    restored_towards,
    text_guided,
    within,
)
from supir.sampling.feature_cache import StepCache, counting_steps
from supir.sampling.noise import NoiseSource, ReplayedNoise, SampleNoise
from supir.sampling.sigmas import (
    Schedule,
    ddpm_sigmas,
    full_range_sigmas,
    initial_latent,
    karras_sigmas,
    log_snr_sigmas,
    reference_karras_sigmas,
    starting_at,
    training_sigmas,
)
from supir.sampling.solvers import Denoiser, Step, StepCallback, dpmpp_2m, edm_euler

__all__ = [
    "Condition",
    "ConditionedDenoiser",
    "Denoiser",
    "NoiseSource",
    "Ramp",
    "ReplayedNoise",
    "SampleNoise",
    "Schedule",
    "Step",
    "StepCache",
    "StepCallback",
    "counting_steps",
    "ddpm_sigmas",
    "discrete_denoiser",
    "dpmpp_2m",
    "edm_euler",
    "full_range_sigmas",
    "in_tiles",
    "initial_latent",
    "karras_sigmas",
    "linear_in_sigma",
    "log_snr_sigmas",
    "reference_karras_sigmas",
    "restored_towards",
    "starting_at",
    "text_guided",
    "training_sigmas",
    "within",
]
