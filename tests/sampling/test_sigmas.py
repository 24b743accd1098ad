"""Schedules beyond the recorded ones."""

from __future__ import annotations

import math

import pytest
import torch

from supir.errors import OptionError
from supir.sampling.sigmas import (
    Schedule,
    ddpm_sigmas,
    initial_latent,
    karras_sigmas,
    log_snr_sigmas,
    starting_at,
    training_sigmas,
)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50, 333, 999, 1000])
def test_even_schedule_falls_from_the_highest_level_to_zero(num_steps: int) -> None:
    sigmas = ddpm_sigmas(num_steps)
    assert len(sigmas) == num_steps + 1
    assert sigmas[0] == training_sigmas()[-1]
    assert sigmas[-1] == 0
    assert bool((sigmas.diff() < 0).all())


@pytest.mark.parametrize("num_steps", [0, -3, 1001])
def test_impossible_numbers_of_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(OptionError, match=r"num_steps is .* 1 to 1000"):
        ddpm_sigmas(num_steps)


def test_karras_ends() -> None:
    sigmas = karras_sigmas(9, 0.03, 14.0)
    assert sigmas[0] == pytest.approx(14.0)
    assert sigmas[-2] == pytest.approx(0.03)
    assert sigmas[-1] == 0


def test_log_snr_levels_fall_by_equal_factors() -> None:
    sigmas = log_snr_sigmas(9, 0.03, 14.0)
    assert sigmas[0] == pytest.approx(14.0)
    assert sigmas[-1] == 0
    factors = sigmas[1:-1] / sigmas[:-2]
    assert factors.tolist() == pytest.approx([(0.03 / 14) ** (1 / 8)] * 8, rel=1e-5)
    assert log_snr_sigmas(1, 0.03, 14.0).tolist() == pytest.approx([14.0, 0.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("s_churn", [0.0, 5.0, 1000.0])
@pytest.mark.parametrize("num_steps", [1, 10, 50])
def test_every_visited_level_finds_its_step(num_steps: int, s_churn: float, dtype: torch.dtype) -> None:
    schedule = Schedule(ddpm_sigmas(num_steps).to(dtype), s_churn=s_churn)
    for index, sigma_hat in enumerate(schedule.churned):
        batch = sigma_hat.expand(3)
        assert torch.equal(schedule.before_churn(batch), schedule.sigmas[index].expand(3))
        assert torch.equal(schedule.after(batch), schedule.sigmas[index + 1].expand(3))


def test_churn_stays_within_its_interval_and_its_bound() -> None:
    schedule = Schedule(ddpm_sigmas(10), s_churn=100.0, s_min=1.0, s_max=8.0)
    ratio = schedule.churned / schedule.sigmas[:-1]
    inside = (schedule.sigmas[:-1] >= 1.0) & (schedule.sigmas[:-1] <= 8.0)
    assert bool(inside.any())
    assert not bool(inside.all())
    torch.testing.assert_close(ratio[inside], torch.full_like(ratio[inside], math.sqrt(2)))
    assert torch.equal(ratio[~inside], torch.ones_like(ratio[~inside]))


def test_starting_lower_keeps_the_lower_levels() -> None:
    sigmas = ddpm_sigmas(20)
    cut = starting_at(sigmas, 2.5)
    assert cut[0] == 2.5
    assert torch.equal(cut[1:], sigmas[sigmas < 2.5])
    assert torch.equal(starting_at(sigmas, float(sigmas[0])), sigmas)
    with pytest.raises(OptionError, match="start_sigma"):
        starting_at(sigmas, 15.0)


def test_initial_latent_is_noise_or_a_noised_anchor() -> None:
    noise, sigmas = torch.randn(2, 3, 4, 5), ddpm_sigmas(5)
    anchor = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(initial_latent(noise, sigmas), noise * math.sqrt(1 + float(sigmas[0]) ** 2))
    torch.testing.assert_close(initial_latent(noise, sigmas, anchor), anchor + noise * float(sigmas[0]))


@pytest.mark.parametrize("sigmas", [[1.0], [0.1, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, -0.1]])
def test_schedules_that_do_not_fall_are_refused(sigmas: list[float]) -> None:
    with pytest.raises(OptionError, match="sigmas"):
        Schedule(torch.tensor(sigmas))
