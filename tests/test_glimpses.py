"""StepPreviews of a restoration under way never cost it anything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from supir.restoration.step_preview import StepPreviews, StepPreviewWarning
from supir.sampling.solvers import Step
from tiny import tiny_pipeline


@pytest.mark.parametrize("error", [RuntimeError("no kernel"), MemoryError(), TypeError("no such type"), OSError(28)])
def test_what_fails_costs_the_glimpses_alone(error: Exception) -> None:
    tried: list[Tensor] = []

    def fail(pixels: Tensor) -> None:
        tried.append(pixels)
        raise error

    latent = torch.zeros(1, 4, 8, 8)
    step = Step(index=0, num_steps=3, sigma=1.0, denoised=latent, x=latent)
    glimpses = StepPreviews(tiny_pipeline().autoencoder, fail)
    with torch.no_grad(), pytest.warns(StepPreviewWarning, match="no more glimpses"):
        glimpses(step)
    glimpses(step)
    assert len(tried) == 1
