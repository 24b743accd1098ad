"""Strengths over the levels of a restoration: from one end of their ramp to the other, whatever else is set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from supir.pipeline import SupirPipeline
from supir.restoration import stack as restoration
from supir.sampling.solvers import Step
from tiny import tiny_pipeline

OURS = ("quality", "fidelity", "fast")
SMALL = {"min_size": 16, "num_steps": 6, "scale": 1.0}


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    return tiny_pipeline()


def pixels() -> Tensor:
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def guidance_of(
    pipeline: SupirPipeline, patch: pytest.MonkeyPatch, preset: str, **options: Any
) -> tuple[list[float], list[Step], Tensor]:
    """The strength of text guidance in each step, the steps, and the anchor."""
    strengths: list[float] = []
    steps: list[Step] = []
    real = restoration.text_guided

    def watched(denoise: Any, positive: Any, negative: Any, scale: Callable[[Tensor], Tensor], **more: Any) -> Any:
        def seen(sigma: Tensor) -> Tensor:
            strengths.append(float(scale(sigma)[0]))
            return scale(sigma)

        return real(denoise, positive, negative, seen, **more)

    with patch.context() as patched:
        patched.setattr(restoration, "text_guided", watched)
        chosen = pipeline.options(preset, **(SMALL | options))
        found = pipeline.restore_pixels(pixels(), chosen, on_step=steps.append)
    return strengths, steps, found.anchor


@pytest.mark.parametrize("preset", OURS)
@pytest.mark.parametrize("more", [{}, {"s_churn": 50.0}, {"start_sigma": 3.0}], ids=["plain", "churn", "start"])
def test_guidance_goes_from_one_end_to_the_other(
    pipeline: SupirPipeline, monkeypatch: pytest.MonkeyPatch, preset: str, more: dict[str, float]
) -> None:
    if preset == "fast":
        more = {name: value for name, value in more.items() if name != "s_churn"}
    strengths, _, _ = guidance_of(pipeline, monkeypatch, preset, text_guidance=4.0, text_guidance_start=1.0, **more)
    assert strengths[0] == pytest.approx(1.0, abs=1e-6)
    assert strengths == sorted(strengths)
    assert 3.5 < strengths[-1] <= 4.0


def test_the_public_code_goes_beyond_its_start(pipeline: SupirPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    strengths, _, _ = guidance_of(pipeline, monkeypatch, "reference", s_churn=50.0)
    assert strengths[0] == pytest.approx(4 - 3 * 2**0.5, abs=1e-3)


@pytest.mark.parametrize("preset", OURS)
@pytest.mark.parametrize("start_sigma", ["off", 3.0])
def test_the_first_step_is_pulled_whole_and_the_last_is_free(
    pipeline: SupirPipeline, monkeypatch: pytest.MonkeyPatch, preset: str, start_sigma: float | str
) -> None:
    """Algorithm 1: k = (sigma_t / sigma_T) ** tau_r, and sigma_T is where sampling starts."""
    tau = 4.0
    common = {"restoration_guidance": tau, "start_sigma": start_sigma, "s_churn": 0.0}
    _, steps, anchor = guidance_of(pipeline, monkeypatch, preset, **common)
    torch.testing.assert_close(steps[0].denoised, anchor, atol=1e-4, rtol=0)
    assert (steps[-1].denoised - anchor).abs().mean() > 0.1

    _, plain, _ = guidance_of(pipeline, monkeypatch, preset, **(common | {"restoration_guidance": 100.0}))
    pull = (steps[0].sigma / (3.0 if start_sigma == 3.0 else 14.6146)) ** tau
    expected = plain[1].denoised + (anchor - plain[1].denoised) * pull
    torch.testing.assert_close(steps[1].denoised, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("start_sigma", ["off", 3.0])
def test_the_control_scale_starts_at_its_start(
    pipeline: SupirPipeline, monkeypatch: pytest.MonkeyPatch, start_sigma: float | str
) -> None:
    seen: list[float] = []
    forward = pipeline.unet.forward

    def watched(*arguments: Any, **named: Any) -> Any:
        seen.append(named["control_scale"])
        return forward(*arguments, **named)

    monkeypatch.setattr(pipeline.unet, "forward", watched)
    options = pipeline.options(**SMALL, control_scale=1.0, control_scale_start=0.0, start_sigma=start_sigma)
    pipeline.restore_pixels(pixels(), options)
    assert {type(scale) for scale in seen} == {float}, "for which the connectors have shorter ways"
    assert seen[0] == pytest.approx(0.0, abs=1e-6)
    assert seen == sorted(seen)
    assert 0.9 < seen[-1] <= 1.0
