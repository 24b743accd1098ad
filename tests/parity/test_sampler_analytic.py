"""Complete trajectories of the public code's samplers with a closed-form denoiser (reference sections 6 and 7)."""

from __future__ import annotations

from reference_fixtures import ReferenceFixtures

from parity.replay import analytic_denoised, check, condition, num_samples, replay

TOLERANCE = 1e-4


def test_every_recorded_trajectory(fixtures: ReferenceFixtures) -> None:
    cases, arrays = fixtures.json("sampler_analytic")["cases"], fixtures.tensors("sampler_analytic")
    assert cases
    for name, case in cases.items():
        samples = num_samples(case, arrays)
        run = replay(
            case,
            arrays,
            name,
            analytic_denoised,
            positive=condition(arrays, "c", samples),
            negative=condition(arrays, "uc", samples),
        )
        check(case, arrays, name, run, TOLERANCE)
