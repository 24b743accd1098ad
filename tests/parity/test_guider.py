"""Text guidance, linear in sigma (reference section 6)."""

from __future__ import annotations

import torch
from reference_fixtures import ReferenceFixtures
from torch import Tensor

from supir.sampling.denoiser import Condition, linear_in_sigma, text_guided

TOLERANCE = 1e-5


def recorded_branch(x: Tensor, sigma: Tensor, known: Condition) -> Tensor:
    """A denoiser whose answer is the recorded one."""
    answer = known["answer"]
    assert isinstance(answer, Tensor)
    return answer


def test_scale_and_result(fixtures: ReferenceFixtures) -> None:
    cases, arrays = fixtures.json("guider")["cases"], fixtures.tensors("guider")
    negative, positive = arrays["x"].chunk(2)
    assert cases
    for number, case in enumerate(cases):
        at_max, at_zero = case["scale"], case["scale_min"]
        ramp = linear_in_sigma(at_max if at_zero is None else at_zero, at_max)
        torch.testing.assert_close(ramp(arrays["sigma"]), arrays[f"scale_{number}"], rtol=0, atol=TOLERANCE)
        for in_one_batch in (True, False):
            guided = text_guided(
                recorded_branch, {"answer": positive}, {"answer": negative}, ramp, in_one_batch=in_one_batch
            )
            found = guided(torch.zeros_like(positive), arrays["sigma"])
            torch.testing.assert_close(found, arrays[f"out_{number}"], rtol=0, atol=TOLERANCE)
