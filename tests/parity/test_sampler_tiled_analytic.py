"""The public code's tiled samplers are its plain ones over a tiled denoiser (reference sections 7.2 and 7.4)."""

from __future__ import annotations

import pytest
from reference_fixtures import ReferenceFixtures

from parity.replay import analytic_denoised, check, condition, num_samples, replay
from supir.tensors.tiling import reference_gaussian

TOLERANCE = 1e-4


@pytest.mark.parametrize("batch", [1, 4])
def test_every_recorded_trajectory(fixtures: ReferenceFixtures, batch: int) -> None:
    recorded, arrays = fixtures.json("sampler_tiled_analytic"), fixtures.tensors("sampler_tiled_analytic")
    layout = reference_gaussian(recorded["tile_size"], recorded["tile_stride"])
    assert recorded["cases"]
    for name, case in recorded["cases"].items():
        samples = num_samples(case, arrays)
        positive, negative = condition(arrays, "c", samples), condition(arrays, "uc", samples)
        if case["local_prompts"]:
            positive["vector"] = [vector[None] for vector in arrays["local_vectors"]]
            positive["crossattn"] = [positive["crossattn"]] * len(arrays["local_vectors"])
        run = replay(
            case,
            arrays,
            name,
            analytic_denoised,
            positive=positive,
            negative=negative,
            layout=layout,
            batch=batch,
        )
        check(case, arrays, name, run, TOLERANCE)
