"""Noise per sample, and replayed."""

from __future__ import annotations

import pytest
import torch

from parity.replayed_noise import ReplayedNoise
from supir.errors import OptionError
from supir.sampling.noise import SampleNoise

LATENT = torch.zeros(3, 4, 6, 5)


def test_a_seed_draws_the_same_alone_and_in_a_batch() -> None:
    together, alone = SampleNoise([5, 6, 7]), SampleNoise([6])
    for _ in range(3):
        assert torch.equal(together(LATENT)[1:2], alone(LATENT[:1]))


def test_seeds_and_draws_differ_and_are_unit_normal() -> None:
    source = SampleNoise([0, 1])
    first, second = source(torch.zeros(2, 4, 64, 64)), source(torch.zeros(2, 4, 64, 64))
    for a, b in ((first[0], first[1]), (first[0], second[0])):
        correlation = (a * b).mean()
        assert abs(float(correlation)) < 0.05
    assert float(first.std()) == pytest.approx(1, abs=0.02)
    assert float(first.mean()) == pytest.approx(0, abs=0.02)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    SampleNoise([1, 2, 3])(LATENT)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_takes_the_dtype_of_the_latent() -> None:
    assert SampleNoise([1, 2, 3])(LATENT.bfloat16()).dtype == torch.bfloat16


def test_wrong_numbers_of_seeds_are_refused() -> None:
    with pytest.raises(OptionError, match="batch of 3 samples but 2 seeds"):
        SampleNoise([1, 2])(LATENT)
    with pytest.raises(OptionError, match="empty"):
        SampleNoise([])


def test_replayed_noise_comes_in_order_and_ends() -> None:
    recorded = torch.randn(2, *LATENT.shape)
    source = ReplayedNoise(recorded)
    assert torch.equal(source(LATENT), recorded[0])
    with pytest.raises(OptionError, match=r"recorded noise 1 has shape"):
        source(LATENT[:1])
    assert torch.equal(source(LATENT), recorded[1])
    with pytest.raises(OptionError, match="all 2 recorded"):
        source(LATENT)
