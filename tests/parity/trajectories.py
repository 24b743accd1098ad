"""A recorded sampling run, done again with our stack of wrappers and a solver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from parity.replayed_noise import ReplayedNoise
from parity.tiny_network import conditioned_denoiser, conditions
from supir.models.adaptor import SupirAdaptor
from supir.models.unet import SupirUNet
from supir.sampling.denoiser import in_tiles, linear_in_sigma, restored_towards, text_guided
from supir.sampling.sigmas import Schedule, ddpm_sigmas, initial_latent, reference_karras_sigmas
from supir.sampling.solvers import Step, dpmpp_2m, edm_euler
from supir.tensors.tiling import Layout

MIN_NEXT_SIGMA = 0.05


def replay(
    unet: SupirUNet,
    adaptor: SupirAdaptor,
    recorded: Mapping[str, Tensor],
    name: str,
    case: Mapping[str, Any],
    *,
    layout: Layout | None = None,
    tile_batch: int = 1,
) -> list[Tensor]:
    """The latent after each step of case `name`."""
    multistep = "DPMPP2M" in case["sampler"]
    sigmas = reference_karras_sigmas(case["num_steps"]) if multistep else ddpm_sigmas(case["num_steps"])
    schedule = Schedule(sigmas, s_churn=0.0 if multistep else case["s_churn"])
    denoise = conditioned_denoiser(unet, adaptor, _control_scale(case, schedule))
    if layout is not None:
        denoise = in_tiles(denoise, layout, batch=tile_batch)
    positive, negative = conditions(recorded)
    scale, lowest = case["guider_scale"], case["guider_scale_min"]
    guidance = linear_in_sigma(scale if lowest is None else lowest, scale)
    guided = text_guided(denoise, positive, negative, guidance)
    latents: list[Tensor] = []

    def keep(step: Step) -> None:
        latents.append(step.x)

    x = initial_latent(recorded["x_init"], sigmas)
    if multistep:  # the public code's ignores restoration guidance
        noise = ReplayedNoise(recorded.get(f"{name}.brownian", ()))
        eta = case.get("eta", 1.0)
        dpmpp_2m(guided, x, schedule, noise, eta=eta, s_noise=case["s_noise"], noise_on_first_step=False, on_step=keep)
    else:
        tau_r = case["restore_cfg"]
        guided = restored_towards(guided, recorded["x_center"], tau_r, schedule=schedule, min_next_sigma=MIN_NEXT_SIGMA)
        noise = ReplayedNoise(recorded.get(f"{name}.noise", ()))
        edm_euler(guided, x, schedule, noise, s_noise=case["s_noise"], on_step=keep)
    return latents


def _control_scale(case: Mapping[str, Any], schedule: Schedule) -> Any:
    if not case.get("use_linear_control_scale"):
        return case["control_scale"]
    ramp = linear_in_sigma(case["control_scale"], case["control_scale_start"])
    return lambda sigma: ramp(schedule.before_churn(sigma))
