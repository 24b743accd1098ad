"""Few steps with distilled bases: the timesteps they were taught at, the numbers people published, who is told what."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from supir.options import restore_options
from supir.options.combinations import steps_of
from supir.options.distilled import distilled_kind, mismatch
from supir.options.levels import trailing_timesteps
from supir.pipeline import SupirPipeline
from supir.sampling.noise import SampleNoise
from supir.sampling.sigmas import Schedule, trailing_sigmas
from supir.sampling.solvers import lcm
from supir.weights.convert import convert
from tiny import tiny_components, tiny_pipeline
from weights.tiny_files import HEAD_DIMS, TOKENIZERS, saved, sdxl_weights, supir_weights

SMALL: dict[str, Any] = {"min_size": 32, "scale": 1.0}
BASES = ("juggernautXL_v9Rdphoto2Lightning", "sd_xl_turbo_1.0", "sdxl_dmd2_1kp", "Hyper-SDXL-8steps", "lcm_sdxl")


def asked_of(pipeline: SupirPipeline, **options: Any) -> list[int]:
    """The timesteps that the UNet is asked at."""
    asked: list[int] = []
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def listen(module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        asked.append(int((named["timestep"] if "timestep" in named else given[1])[0]))

    keep = pipeline.unet.register_forward_pre_hook(listen, with_kwargs=True)
    try:
        pipeline.restore_pixels(pixels, pipeline.options(**SMALL, **options))
    finally:
        keep.remove()
    return asked


def test_eight_steps_ask_for_the_timesteps_of_eight_step_bases() -> None:
    taught = [999, 874, 749, 624, 499, 374, 249, 124]
    assert trailing_timesteps(8) == taught
    pipeline = tiny_pipeline()
    assert asked_of(pipeline, preset="lightning") == taught
    assert asked_of(pipeline, preset="lightning", solver="lcm", num_steps=4) == [999, 749, 499, 249]


def test_the_preset_has_the_published_numbers() -> None:
    options = restore_options("lightning")
    steps = steps_of(options)
    assert (options.solver, options.eta, len(steps.levels)) == ("dpmpp_2m", 1.0, 8)
    assert (steps.guidance[0], steps.control[0]) == (2.0, 1.0)
    assert steps.guidance == sorted(steps.guidance, reverse=True)
    assert steps.guidance[-1] == pytest.approx(1.5, abs=0.02)
    assert steps.control[-1] == pytest.approx(0.9, abs=0.005)
    assert set(steps.pull) == {0.0}


def test_lcm_noises_each_answer_anew() -> None:
    """What the denoiser is given is its last answer and noise of the next level, whatever was there before."""
    schedule = Schedule(trailing_sigmas(4, 0.03, 14.614641))
    given: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        given.append(x)
        return x * 0.5 + sigma.view(-1, 1, 1, 1)

    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    result = lcm(denoise, start, schedule, SampleNoise([3, 4]), s_noise=0.9)
    noise = SampleNoise([3, 4])
    for index in range(1, 4):
        answer = given[index - 1] * 0.5 + schedule.sigmas[index - 1]
        assert torch.allclose(given[index], answer + noise(answer) * schedule.sigmas[index] * 0.9, atol=1e-5)
    assert torch.equal(result, given[3] * 0.5 + schedule.sigmas[3])


def test_bases_are_told_by_what_they_are_called() -> None:
    kinds = [distilled_kind(name) for name in BASES]
    assert kinds == ["Lightning", "Turbo", "DMD2", "Hyper-SD", "LCM"]
    for other in ("sd_xl_base_1.0", "hyperRealisticXL_v4", "juggernautXL_v9", "realvisxl_calcmix"):
        assert distilled_kind(other) is None, other


def test_who_does_not_belong_together_is_told() -> None:
    quality, lightning = restore_options("quality"), restore_options("lightning")
    assert mismatch(lightning, "Lightning") is None
    assert mismatch(quality, None) is None
    assert "burn colours and edges: use the preset lightning" in str(mismatch(quality, "Lightning"))
    assert str(mismatch(quality, "DMD2")).endswith("and the solver lcm")
    assert "neither name nor title" in str(mismatch(lightning, None))
    with_lora = restore_options("lightning", lora="sdxl_lightning_8step_lora.safetensors")
    assert mismatch(with_lora, None) is None
    assert mismatch(restore_options("quality", lora="sdxl_lightning_8step_lora.safetensors"), None)


@pytest.mark.parametrize("named", ["file", "title"])
def test_a_converted_folder_remembers_and_the_pipeline_says_it_once(named: str, tmp_path: Path) -> None:
    sdxl = tmp_path / ("photoLightning.safetensors" if named == "file" else "photo.safetensors")
    weights = {key: tensor.contiguous() for key, tensor in sdxl_weights().items()}
    save_file(weights, sdxl, metadata={"modelspec.title": "photo v9 Lightning"} if named == "title" else None)
    supir = saved(supir_weights(), tmp_path / "SUPIR-v0F.safetensors")
    tokenizers = tmp_path / "tokenizers"
    for name in TOKENIZERS:
        tiny_components()[name].save_pretrained(tokenizers / name)  # type: ignore[attr-defined]
    report = convert(sdxl, supir, tmp_path / "mine", dtype="float32", head_dims=HEAD_DIMS, tokenizers=tokenizers)
    assert any("the preset lightning" in note for note in report.notes)
    assert json.loads((tmp_path / "mine" / "conversion.json").read_text())["sources"][0]["distilled"] == "Lightning"
    pipeline = SupirPipeline.from_pretrained(tmp_path / "mine")
    pixels = torch.zeros(1, 3, 32, 32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for seed in (0, 1):
            pipeline.restore_pixels(pixels, pipeline.options(text_guidance=7.5, num_steps=2, seed=seed, **SMALL))
    assert sum("distilled to few steps (Lightning)" in str(each.message) for each in caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pipeline.restore_pixels(pixels, pipeline.options("lightning", **SMALL))
