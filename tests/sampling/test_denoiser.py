"""The wrappers between a network and a solver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from supir.errors import OptionError
from supir.sampling.denoiser import discrete_denoiser, in_tiles, linear_in_sigma, restored_towards, text_guided, within
from supir.sampling.sigmas import Schedule, ddpm_sigmas, training_sigmas
from supir.tensors.tiling import blended


def perfect_network(clean: Tensor, noise: Tensor, prediction_type: str, sigma: Tensor) -> Any:
    level = sigma.view(-1, 1, 1, 1)
    alpha = 1 / (1 + level**2).sqrt()
    answer = noise if prediction_type == "epsilon" else alpha * noise - alpha * level * clean
    return lambda x_scaled, timestep, solver_sigma: answer


@pytest.mark.parametrize("quantised", [True, False])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_gives_the_clean_latent(prediction_type: Any, quantised: bool) -> None:
    clean, noise = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
    sigma = training_sigmas()[[3, 500, 999]] if quantised else torch.tensor([0.05, 1.2345, 14.0])
    x = clean + noise * sigma.view(-1, 1, 1, 1)
    network = perfect_network(clean, noise, prediction_type, sigma)
    found = discrete_denoiser(network, prediction_type, quantised=quantised)(x, sigma)
    torch.testing.assert_close(found, clean, rtol=0, atol=2e-5)


def test_fractional_timesteps_hit_the_table_and_lie_between() -> None:
    seen = []
    denoise = discrete_denoiser(lambda x, timestep, sigma: seen.append(timestep) or x, quantised=False)
    table = training_sigmas()
    between = (table[10] * table[11]).sqrt()
    denoise(torch.zeros(4, 1, 1, 1), torch.stack([table[0], table[10], between, table[999]]))
    torch.testing.assert_close(seen[0], torch.tensor([0.0, 10.0, 10.5, 999.0]), rtol=0, atol=2e-3)
    denoise(torch.zeros(2, 1, 1, 1), torch.tensor([0.001, 20.0]))
    torch.testing.assert_close(seen[1], torch.tensor([0.0, 999.0]))


def test_unknown_prediction_types_are_refused() -> None:
    with pytest.raises(OptionError, match="prediction_type"):
        discrete_denoiser(lambda *_: torch.zeros(1), "sample")  # type: ignore[arg-type]


class CountingBranch:
    """A denoiser of a condition with a `text` entry, that counts calls and samples."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor, known: Mapping[str, Any]) -> Tensor:
        self.sizes.append(len(x))
        return x * known["text"].view(-1, 1, 1, 1) + sigma.view(-1, 1, 1, 1)


POSITIVE, NEGATIVE = {"text": torch.tensor([3.0, 5.0])}, {"text": torch.tensor([1.0, -2.0])}
SIGMA = torch.tensor([2.0, 2.0])


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0, linear_in_sigma(4.0, 1.0)])
def test_guidance_in_one_batch_or_two_calls(scale: Any) -> None:
    x = torch.randn(2, 4, 3, 3)
    strength = scale(SIGMA).view(-1, 1, 1, 1) if callable(scale) else scale
    low, high = (CountingBranch()(x, SIGMA, known) for known in (NEGATIVE, POSITIVE))
    for in_one_batch in (True, False):
        found = text_guided(CountingBranch(), POSITIVE, NEGATIVE, scale, in_one_batch=in_one_batch)(x, SIGMA)
        torch.testing.assert_close(found, low + strength * (high - low))


def test_scale_one_costs_one_branch() -> None:
    x = torch.randn(2, 4, 3, 3)
    for scale, in_one_batch, sizes in ((1.0, True, [2]), (1.0, False, [2]), (2.0, True, [4]), (2.0, False, [2, 2])):
        branch = CountingBranch()
        text_guided(branch, POSITIVE, NEGATIVE, scale, in_one_batch=in_one_batch)(x, SIGMA)
        assert branch.sizes == sizes
    branch = CountingBranch()
    found = text_guided(branch, POSITIVE, NEGATIVE, within(7.0, 0.5, 1.5))(x, SIGMA)
    assert branch.sizes == [2]
    assert torch.equal(found, CountingBranch()(x, SIGMA, POSITIVE))


def test_conditions_need_the_same_entries() -> None:
    with pytest.raises(OptionError, match="same entries"):
        text_guided(CountingBranch(), POSITIVE, {}, 2.0)


def test_ramps() -> None:
    sigma = torch.tensor([0.0, 5.0, 10.0])
    torch.testing.assert_close(linear_in_sigma(4.0, 1.0, 10.0)(sigma), torch.tensor([4.0, 2.5, 1.0]))
    assert torch.equal(within(3.0, 0.0, 5.0)(sigma), torch.tensor([1.0, 3.0, 1.0]))
    ramp = within(linear_in_sigma(4.0, 1.0, 10.0), 5.0, outside=0.0)
    torch.testing.assert_close(ramp(sigma), torch.tensor([0.0, 0.0, 1.0]))


def test_restoration_pulls_by_the_level_before_churn_and_spares_the_last_step() -> None:
    schedule = Schedule(ddpm_sigmas(8), s_churn=3.0)
    anchor, zero = torch.full((1, 1, 2, 2), 5.0), torch.zeros(1, 1, 2, 2)
    restored = restored_towards(
        lambda x, sigma: zero, anchor, 2.0, schedule=schedule, sigma_max=14.0, min_next_sigma=0.05
    )
    for index, sigma_hat in enumerate(schedule.churned):
        expected = 0.0 if index == 7 else 5.0 * (float(schedule.sigmas[index]) / 14.0) ** 2
        found = restored(zero, sigma_hat[None])
        torch.testing.assert_close(found, torch.full_like(zero, expected))


@pytest.mark.parametrize("tau_r", [None, 0.0, -1.0])
def test_restoration_off_is_the_denoiser_itself(tau_r: float | None) -> None:
    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return x

    assert restored_towards(denoise, torch.zeros(1), tau_r) is denoise


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_tiles_crop_what_is_spatial_and_repeat_the_rest(batch: int) -> None:
    x, control = torch.randn(2, 4, 20, 28), torch.randn(2, 4, 20, 28)
    known = {"text": torch.tensor([3.0, 5.0]), "control": control}

    def denoise(x: Tensor, sigma: Tensor, known: Mapping[str, Any]) -> Tensor:
        return CountingBranch()(x, sigma, known) + known["control"]

    sigma = torch.tensor([1.0, 2.0])
    found = in_tiles(denoise, blended(8, 4, align=4), batch=batch)(x, sigma, known)
    torch.testing.assert_close(found, denoise(x, sigma, known))


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("in_one_batch", [True, False])
def test_a_prompt_for_each_tile(batch: int, in_one_batch: bool) -> None:
    layout, x = blended(8, 4, fade=0), torch.zeros(1, 1, 8, 12)
    positive = {"text": [torch.tensor([1.0]), torch.tensor([2.0])]}
    negative = {"text": torch.tensor([0.0])}

    def denoise(x: Tensor, sigma: Tensor, known: Mapping[str, Any]) -> Tensor:
        return x + known["text"].view(-1, 1, 1, 1)

    tiles = in_tiles(denoise, layout, batch=batch)
    found = text_guided(tiles, positive, negative, 3.0, in_one_batch=in_one_batch)(x, torch.ones(1))
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([3.0] * 6 + [6.0] * 6))


def test_tiles_of_a_local_network_in_any_batch() -> None:
    kernel = torch.randn(4, 4, 3, 3) / 6
    x, sigma = torch.randn(2, 4, 24, 40), torch.ones(2)

    def denoise(x: Tensor, sigma: Tensor, known: Mapping[str, Any]) -> Tensor:
        return F.conv2d(x, kernel, padding=1)

    found = [in_tiles(denoise, blended(16, 4, fade=2), batch=batch)(x, sigma, {}) for batch in (1, 2, 7)]
    for each in found:
        torch.testing.assert_close(each, denoise(x, sigma, {}), rtol=0, atol=1e-5)
