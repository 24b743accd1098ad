"""Trajectories over the discrete denoiser, in float32 and in the bfloat16 sigma arithmetic of the public defaults."""

from __future__ import annotations

import torch
from reference_fixtures import ReferenceFixtures
from torch import Tensor

from parity.replay import check, condition, num_samples, replay
from supir.sampling.denoiser import Condition, discrete_denoiser

TOLERANCE = 1e-4


def predicted_noise(x_scaled: Tensor, timestep: Tensor, sigma: Tensor, known: Condition, strength: Tensor) -> Tensor:
    """The closed form that the fixture was recorded with."""
    control, vector = known["control"], known["vector"]
    assert isinstance(control, Tensor)
    assert isinstance(vector, Tensor)
    lift = 0.0005 * timestep.float() + 0.2 * vector.mean(dim=1)
    steered = 0.3 * control.float().tanh() * strength.view(-1, 1, 1, 1)
    return 0.5 * x_scaled.tanh() + steered + lift.view(-1, 1, 1, 1)


def test_every_recorded_trajectory(fixtures: ReferenceFixtures) -> None:
    cases, arrays = fixtures.json("sampler_quantised")["cases"], fixtures.tensors("sampler_quantised")
    assert cases
    for name, case in cases.items():
        samples = num_samples(case, arrays)
        run = replay(
            case,
            arrays,
            name,
            discrete_denoiser(predicted_noise),
            positive=condition(arrays, "c", samples),
            negative=condition(arrays, "uc", samples),
            dtype=getattr(torch, case["x_dtype"]),
        )
        check(case, arrays, name, run, TOLERANCE)
