"""Runs one recorded case of a sampler fixture with our sampling functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from parity.replayed_noise import ReplayedNoise
from supir.sampling.denoiser import (
    Condition,
    ConditionedDenoiser,
    in_tiles,
    linear_in_sigma,
    restored_towards,
    text_guided,
)
from supir.sampling.sigmas import Schedule, ddpm_sigmas, initial_latent, reference_karras_sigmas
from supir.sampling.solvers import dpmpp_2m, edm_euler
from supir.tensors.tiling import Layout

#: (x, sigma, condition, control_scale (B,)) -> denoised
Model = Callable[[Tensor, Tensor, Condition, Tensor], Tensor]
MIN_NEXT_SIGMA = 0.05


def replay(
    case: Mapping[str, Any],
    arrays: Mapping[str, Tensor],
    name: str,
    model: Model,
    *,
    positive: Condition,
    negative: Condition,
    layout: Layout | None = None,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
) -> tuple[Tensor, list[Tensor], ReplayedNoise]:
    """The final latent, the latent after each step, and the noise source, to see how much of it was used."""
    second_order = "DPMPP2M" in case["sampler"]
    x_init = arrays["x_init"]
    if case.get("batch") == "first element only":
        x_init = x_init[:1]
    sigmas = (reference_karras_sigmas if second_order else ddpm_sigmas)(case["num_steps"])
    schedule = Schedule(sigmas.to(dtype), s_churn=0.0 if second_order else float(case.get("s_churn", 0.0)))
    denoise = _with_control_scale(model, case, schedule)
    if layout is not None:
        denoise = in_tiles(denoise, layout, batch=batch)
    at_zero, at_max = case["guider_scale_min"], case["guider_scale"]
    ramp = linear_in_sigma(at_max if at_zero is None else at_zero, at_max)
    guided = text_guided(denoise, positive, negative, ramp)
    noise = ReplayedNoise(arrays.get(f"{name}.brownian" if second_order else f"{name}.noise", []))
    start = initial_latent(x_init.to(dtype), sigmas)
    trajectory: list[Tensor] = []
    common = {"s_noise": case["s_noise"], "on_step": lambda step: trajectory.append(step.x)}
    if second_order:
        eta = case.get("eta", 1.0)
        out = dpmpp_2m(guided, start, schedule, noise, eta=eta, noise_on_first_step=False, **common)
    else:
        guided = restored_towards(
            guided, arrays["x_center"], case["restore_cfg"], schedule=schedule, min_next_sigma=MIN_NEXT_SIGMA
        )
        out = edm_euler(guided, start, schedule, noise, **common)
    return out, trajectory, noise


def check(case: Mapping[str, Any], arrays: Mapping[str, Tensor], name: str, run: Any, tolerance: float) -> None:
    """Hold the run against the recorded latents, relative to the largest of each."""
    out, trajectory, noise = run
    recorded = list(arrays.get(f"{name}.traj", []))
    if recorded:
        assert len(trajectory) == len(recorded) == case["num_steps"]
    pairs = [*zip(trajectory, recorded, strict=False), (out, arrays[f"{name}.out"])]
    for index, (ours, theirs) in enumerate(pairs):
        assert ours.shape == theirs.shape
        error = float((ours.float() - theirs).abs().max() / theirs.abs().max())
        assert error <= tolerance, f"case {name}, latent {index} of {len(pairs)}: relative error {error:.2e}"
    if case.get("s_churn") or case.get("brownian_steps"):
        expected = len(arrays.get(f"{name}.noise", arrays.get(f"{name}.brownian", [])))
        assert noise.num_used == expected, f"case {name}: {noise.num_used} noises used, {expected} recorded"


def condition(arrays: Mapping[str, Tensor], prefix: str, num_samples: int) -> dict[str, Any]:
    """The recorded condition `prefix`.*, for the first samples."""
    return {key: arrays[f"{prefix}.{key}"][:num_samples] for key in ("control", "crossattn", "vector")}


def num_samples(case: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> int:
    return 1 if case.get("batch") == "first element only" else len(arrays["x_init"])


def analytic_denoised(x: Tensor, sigma: Tensor, known: Condition, control_scale: Tensor) -> Tensor:
    """The closed form that the analytic fixtures were recorded with."""
    level, strength = sigma.view(-1, 1, 1, 1), control_scale.view(-1, 1, 1, 1)
    control, vector = known["control"], known["vector"]
    assert isinstance(control, Tensor)
    assert isinstance(vector, Tensor)
    lift = 0.2 * vector.mean(dim=1).view(-1, 1, 1, 1)
    return x / (1 + level**2) + strength * 0.5 * control.tanh() * level / (1 + level) + lift


def _with_control_scale(model: Model, case: Mapping[str, Any], schedule: Schedule) -> ConditionedDenoiser:
    at_zero = case["control_scale"]
    at_max = case["control_scale_start"] if case.get("use_linear_control_scale") else at_zero
    ramp = linear_in_sigma(at_zero, at_max)
    return lambda x, sigma, known: model(x, sigma, known, ramp(schedule.before_churn(sigma)))
