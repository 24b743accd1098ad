"""The solvers against closed forms, and against one another's edge cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sampling import gaussian
from supir.errors import OptionError
from supir.sampling.denoiser import in_tiles, restored_towards, text_guided
from supir.sampling.noise import SampleNoise
from supir.sampling.sigmas import (
    Schedule,
    ddpm_sigmas,
    full_range_sigmas,
    initial_latent,
    karras_sigmas,
    reference_karras_sigmas,
    starting_at,
)
from supir.sampling.solvers import Step, dpmpp_2m, edm_euler
from supir.tensors.tiling import blended

Solver = Callable[..., Tensor]


def error(solver: Solver, num_steps: int) -> float:
    start = gaussian.noised(64, gaussian.START)
    found = solver(gaussian.denoised, start, Schedule(gaussian.levels(num_steps)))
    return float((found - gaussian.exact(start)).abs().max())


@pytest.mark.parametrize(("solver", "order"), [(edm_euler, 1.0), (dpmpp_2m, 2.0)])
def test_order_of_convergence(solver: Solver, order: float) -> None:
    slope = math.log2(error(solver, 80) / error(solver, 160))
    assert slope == pytest.approx(order, abs=0.15)


def test_the_multistep_solver_needs_fewer_steps() -> None:
    assert error(dpmpp_2m, 16) < error(edm_euler, 64)


@pytest.mark.parametrize("num_steps", [8, 16, 50])
def test_our_schedule_keeps_fine_detail(num_steps: int) -> None:
    spread = 0.1

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return spread**2 * x / (spread**2 + sigma.view(-1, 1, 1, 1) ** 2)

    def kept(sigmas: Tensor) -> float:
        start = torch.full((1, 1, 1, 1), math.sqrt(float(sigmas[0]) ** 2 + spread**2))
        return float(dpmpp_2m(denoise, start, Schedule(sigmas))) / spread

    assert kept(full_range_sigmas(num_steps)) > 0.9
    assert kept(reference_karras_sigmas(num_steps)) < 0.65


@pytest.mark.parametrize("num_steps", [8, 12, 16])
def test_equal_steps_in_log_snr_keep_more_of_every_scale(num_steps: int) -> None:
    """Gaussian data of deviation 0.03 to 4: the second-order solver in few steps from pure noise."""
    spread = torch.logspace(math.log10(0.03), math.log10(4), 40).view(-1, 1, 1, 1)

    def lost(grid: str) -> float:
        sigmas = full_range_sigmas(num_steps, grid=grid)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return x * spread**2 / (spread**2 + sigma.view(-1, 1, 1, 1) ** 2)

        end = dpmpp_2m(denoise, (spread**2 + sigmas[0] ** 2).sqrt(), Schedule(sigmas))
        return float((end / spread).log().abs().mean())

    assert lost("log_snr") < 0.9 * lost("karras")


def noise_of(num_values: int) -> Callable[[Tensor], Tensor]:
    """One generator for all values: these tests need many samples, not seeds."""
    generator = torch.Generator().manual_seed(1)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


@pytest.mark.parametrize("end", ["all steps", "first step"])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_the_stochastic_solver_keeps_the_variance(eta: float, end: str) -> None:
    levels = gaussian.levels(40)
    levels = levels if end == "all steps" else levels[:2]
    start = gaussian.noised(40_000, gaussian.START)
    found = dpmpp_2m(gaussian.denoised, start, Schedule(levels), noise_of(len(start)), eta=eta)
    expected = gaussian.SPREAD**2 + float(levels[-1]) ** 2
    assert float(found.var()) == pytest.approx(expected, rel=0.03)
    assert float(found.mean()) == pytest.approx(gaussian.MEAN, abs=0.1 * math.sqrt(expected))


def test_the_public_first_step_loses_variance() -> None:
    levels, start = gaussian.levels(10)[:2], gaussian.noised(40_000, gaussian.START)
    found = dpmpp_2m(gaussian.denoised, start, Schedule(levels), eta=0.0)
    lossy = dpmpp_2m(
        gaussian.denoised, start, Schedule(levels), noise_of(len(start)), eta=1.0, noise_on_first_step=False
    )
    assert float(lossy.var()) < 0.6 * float(found.var())


def test_churn_keeps_the_variance() -> None:
    levels, start = gaussian.levels(400), gaussian.noised(40_000, gaussian.START)
    found = edm_euler(gaussian.denoised, start, Schedule(levels, s_churn=20.0), noise_of(len(start)))
    assert float(found.var()) == pytest.approx(gaussian.SPREAD**2 + gaussian.END**2, rel=0.03)


def solve(
    solver: Solver, seeds: list[int], start: Tensor, denoise: Callable[..., Tensor] = gaussian.denoised
) -> Tensor:
    if solver is edm_euler:
        return edm_euler(denoise, start, Schedule(ddpm_sigmas(8), s_churn=5.0), SampleNoise(seeds))
    return dpmpp_2m(denoise, start, Schedule(karras_sigmas(8, 0.1, 14.0)), SampleNoise(seeds), eta=1.0)


@pytest.mark.parametrize("solver", [edm_euler, dpmpp_2m])
def test_the_same_seed_alone_and_in_a_batch(solver: Solver) -> None:
    start = torch.randn(3, 4, 6, 5) * 14
    together = solve(solver, [4, 5, 6], start)
    for index, seed in enumerate([4, 5, 6]):
        assert torch.equal(together[index : index + 1], solve(solver, [seed], start[index : index + 1]))
    assert not torch.equal(together[:1], solve(solver, [7], start[:1]))


@pytest.mark.parametrize("solver", [edm_euler, dpmpp_2m])
@pytest.mark.parametrize("batch", [1, 2, 50])
def test_tiles_change_nothing_of_a_pointwise_denoiser(solver: Solver, batch: int) -> None:
    start = torch.randn(2, 4, 20, 33) * 14
    tiles = in_tiles(lambda x, sigma, known: gaussian.denoised(x, sigma), blended(8, 4), batch=batch)
    found = solve(solver, [1, 2], start, lambda x, sigma: tiles(x, sigma, {}))
    assert torch.equal(found, solve(solver, [1, 2], start))


def test_guidance_off_is_plain_edm() -> None:
    start, calls = torch.randn(2, 4, 6, 5) * 14, []

    def conditioned(x: Tensor, sigma: Tensor, known: object) -> Tensor:
        calls.append(len(x))
        return gaussian.denoised(x, sigma)

    text = torch.zeros(2, 3)
    guided = text_guided(conditioned, {"text": text}, {"text": text}, 1.0)
    wrapped = restored_towards(guided, torch.zeros_like(start), None)
    found = edm_euler(wrapped, start, Schedule(ddpm_sigmas(10)))
    expected = start
    sigmas = ddpm_sigmas(10)
    for sigma, next_sigma in pairwise(sigmas):  # Karras et al. 2022, Algorithm 2, no churn
        clean = gaussian.denoised(expected, sigma.expand(2))
        expected = expected + (next_sigma - sigma) * ((expected - clean) / sigma)
    assert torch.equal(found, expected)
    assert calls == [2] * 10


@pytest.mark.parametrize("solver", [edm_euler, dpmpp_2m])
def test_restoration_guidance_is_honoured(solver: Solver) -> None:
    anchor = torch.full((2, 4, 6, 5), 3.0)
    start = torch.randn(2, 4, 6, 5) * 14
    distances = [
        float((solve(solver, [1, 2], start, restored_towards(gaussian.denoised, anchor, tau_r)) - anchor).abs().mean())
        for tau_r in (None, 1.0, 0.25)
    ]
    assert distances[0] > distances[1] + 0.1
    assert distances[1] > distances[2] + 0.1


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_multistep_solver_ends_at_zero_with_a_batch(eta: float, num_samples: int) -> None:
    start = torch.randn(num_samples, 4, 6, 5) * 14
    found = dpmpp_2m(gaussian.denoised, start, Schedule(ddpm_sigmas(6)), SampleNoise(list(range(num_samples))), eta=eta)
    assert bool(found.isfinite().all())


def test_a_latent_part_of_the_way() -> None:
    noise, anchor = torch.randn(2, 4, 6, 5), torch.full((2, 4, 6, 5), gaussian.MEAN)
    sigmas = starting_at(full_range_sigmas(100), 1.0)
    found = edm_euler(gaussian.denoised, initial_latent(noise, sigmas, anchor), Schedule(sigmas))
    expected = gaussian.exact(anchor + noise, start=1.0, end=0.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1)
    assert (found - expected).abs().mean() < 0.03


@pytest.mark.parametrize("solver", [edm_euler, dpmpp_2m])
def test_steps_are_reported_and_can_cancel(solver: Solver) -> None:
    steps: list[Step] = []
    sigmas = ddpm_sigmas(5)
    found = solver(gaussian.denoised, torch.randn(1, 4, 3, 3) * 14, Schedule(sigmas), on_step=steps.append)
    assert [(step.index, step.num_steps) for step in steps] == [(index, 5) for index in range(5)]
    assert [step.sigma for step in steps] == [float(sigma) for sigma in sigmas[1:]]
    assert torch.equal(steps[-1].x, found)
    assert steps[0].denoised.shape == found.shape

    def cancel(step: Step) -> None:
        if step.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solver(gaussian.denoised, torch.randn(1, 4, 3, 3), Schedule(sigmas), on_step=cancel)


def test_missing_noise_and_impossible_settings_are_refused() -> None:
    start = torch.randn(1, 4, 3, 3)
    with pytest.raises(OptionError, match="no noise source"):
        edm_euler(gaussian.denoised, start, Schedule(ddpm_sigmas(3), s_churn=1.0))
    with pytest.raises(OptionError, match="no noise source"):
        dpmpp_2m(gaussian.denoised, start, Schedule(ddpm_sigmas(3)), eta=1.0)
    with pytest.raises(OptionError, match="s_churn"):
        dpmpp_2m(gaussian.denoised, start, Schedule(ddpm_sigmas(3), s_churn=1.0))
    with pytest.raises(OptionError, match="twice"):
        dpmpp_2m(gaussian.denoised, start, Schedule(torch.tensor([2.0, 1.0, 1.0, 0.0])))
    with pytest.raises(OptionError, match="eta"):
        dpmpp_2m(gaussian.denoised, start, Schedule(ddpm_sigmas(3)), eta=-1.0)
