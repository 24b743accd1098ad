"""SUPIR as diffusers' documentation uses a pipeline, one test a topic of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image

import supir
from supir.errors import KeyMismatchError, OptionError
from supir.pipeline import SupirPipeline
from supir.weights.model_folder import BUNDLED_MODEL
from tiny import TRUNK, randomised, save_tiny_model, tiny_components, tiny_pipeline

OWN = {"all": {"num_steps": 2, "min_size": 64, "scale": 1.0}}
"""A tiny model's own numbers."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("supir") / "tiny-supir", presets=OWN)


@pytest.fixture(scope="module")
def pipe() -> SupirPipeline:
    return tiny_pipeline(presets=OWN)


@pytest.fixture
def image() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)
    return Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC)


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.slow
def test_load_a_folder_as_a_custom_pipeline(folder: Path, tmp_path: Path, image: Image.Image) -> None:
    """In a process that names nothing of ours: what opens the folder lies in it."""
    image.save(tmp_path / "photo.png")
    code = f"""
from diffusers import DiffusionPipeline
from diffusers.utils import load_image

folder = {str(folder)!r}
pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
image = load_image({str(tmp_path / "photo.png")!r})
result = pipe(image=image, prompt="a door", output_type="pil").images[0]
result.save({str(tmp_path / "result.png")!r})
print(type(pipe).__name__, pipe.identity["model"], len(pipe.identity["model_sha256"]))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(supir.__file__).parents[1]), "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["SupirPipeline", "tiny-supir", "64"]
    expected = tiny_pipeline(presets=OWN)(image=image, prompt="a door", output_type="pil").images[0]
    assert same(Image.open(tmp_path / "result.png"), expected)


def test_without_trust_diffusers_runs_nothing_and_says_what_to_type(folder: Path) -> None:
    with pytest.raises(ValueError, match="Pass `trust_remote_code=True`"):
        DiffusionPipeline.from_pretrained(folder, custom_pipeline=str(folder))


def test_the_bundled_model_has_the_file_too(folder: Path) -> None:
    assert (BUNDLED_MODEL / "pipeline.py").read_text() == (folder / "pipeline.py").read_text()


def test_generator(pipe: SupirPipeline, image: Image.Image) -> None:
    first = pipe(image=image, generator=torch.Generator("cpu").manual_seed(0), output_type="pil").images[0]
    again = pipe(image=image, generator=torch.Generator("cpu").manual_seed(0), output_type="pil").images[0]
    other = pipe(image=image, generator=torch.Generator("cpu").manual_seed(1), output_type="pil").images[0]
    assert same(first, again)
    assert not same(first, other)


def test_num_images_per_prompt(pipe: SupirPipeline, image: Image.Image) -> None:
    generator = [torch.Generator("cpu").manual_seed(seed) for seed in range(2)]
    images = pipe(image=image, num_images_per_prompt=2, generator=generator, output_type="pil").images
    assert len(images) == 2
    alone = pipe(image=image, generator=torch.Generator("cpu").manual_seed(1), output_type="pil").images
    assert same(images[1], alone[0])


def test_variants_without_a_generator_have_the_seeds_of_a_batch(pipe: SupirPipeline, image: Image.Image) -> None:
    results = pipe(image, num_images_per_prompt=2, seed=7)
    assert [result.record["seed"] for result in results] == ["7", "8"]


@pytest.mark.parametrize(
    ("output_type", "kind", "shape"),
    [("np", np.ndarray, (1, 48, 64, 3)), ("pt", torch.Tensor, (1, 3, 48, 64)), ("pil", list, None)],
)
def test_output_type(
    pipe: SupirPipeline, image: Image.Image, output_type: str, kind: type, shape: tuple[int, ...] | None
) -> None:
    output = pipe(image=image, output_type=output_type)
    assert isinstance(output.images, kind)
    assert shape is None or output.images.shape == shape
    [as_tuple] = pipe(image=image, output_type=output_type, return_dict=False)
    if shape is not None:
        assert (as_tuple == output.images).all()
        assert 0 <= output.images.min() < output.images.max() <= 1


def test_images_as_arrays_and_tensors(pipe: SupirPipeline, image: Image.Image) -> None:
    array = np.asarray(image).astype(np.float32) / 255
    expected = pipe(image=image, output_type="np").images
    for given in (array, array[None], torch.from_numpy(array).movedim(-1, 0), [image], [array]):
        assert np.abs(pipe(image=given, output_type="np").images - expected).max() < 1e-3


def test_callback_on_step_end(pipe: SupirPipeline, image: Image.Image) -> None:
    told: list[tuple[int, int, torch.Size]] = []

    def log(pipe: Any, step: int, timestep: int, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        told.append((step, timestep, callback_kwargs["latents"].shape))
        return callback_kwargs

    pipe(image=image, num_inference_steps=3, callback_on_step_end=log, callback_on_step_end_tensor_inputs=["latents"])
    assert [step for step, _, _ in told] == [0, 1, 2]
    assert 999 > told[0][1] > told[1][1] >= told[2][1] == 0
    assert {tuple(shape) for _, _, shape in told} == {(1, 4, 8, 12)}


def test_a_callback_may_stop_the_run_and_not_change_it(pipe: SupirPipeline, image: Image.Image) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe(image=image, callback_on_step_end=stop)
    with pytest.raises(OptionError, match="returns other latents; here it may look at them, and raise"):
        pipe(image=image, callback_on_step_end=lambda *given: {"latents": given[-1]["latents"] * 2})


def test_set_progress_bar_config(folder: Path, image: Image.Image, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = SupirPipeline.from_pretrained(folder)
    capsys.readouterr()
    pipe(image=image)
    assert "2/2" in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    pipe(image=image)
    assert capsys.readouterr().err == ""


def sdxl(**changed: Any) -> StableDiffusionXLPipeline:
    parts = tiny_components()
    towers = {name: parts[name] for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")}
    unet = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time",
        use_linear_projection=True,
        **(TRUNK | changed),
    )
    vae = AutoencoderKL(block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
                        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4)  # fmt: skip
    return StableDiffusionXLPipeline(vae=vae, unet=randomised(unet, 9), scheduler=EulerDiscreteScheduler(), **towers)


def test_from_pipe(folder: Path, image: Image.Image) -> None:
    """Everything that SDXL has in memory is used where it lies; its UNet's weights are those that sample."""
    pipe_sdxl = sdxl()
    pipe = SupirPipeline.from_pipe(pipe_sdxl, folder)
    pipe.set_progress_bar_config(disable=True)
    lent, used = dict(pipe_sdxl.unet.named_parameters()), dict(pipe.unet.named_parameters())
    assert lent.keys() < used.keys()
    assert all(used[name].data_ptr() == weight.data_ptr() for name, weight in lent.items())
    assert pipe.text_encoder is pipe_sdxl.text_encoder
    [result] = pipe(image=image)
    [plain] = tiny_pipeline(presets=OWN)(image=image)
    assert not same(result.image, plain.image)
    assert result.record["model"] == "tiny-supir on StableDiffusionXLPipeline"
    assert "model_sha256" not in result.record


def test_from_pipe_says_what_is_missing_or_does_not_fit(folder: Path) -> None:
    with pytest.raises(OptionError, match="StableDiffusionXLPipeline lacks what SUPIR adds: name a model folder"):
        SupirPipeline.from_pipe(sdxl())
    with pytest.raises(KeyMismatchError, match="has other shapes than the model's"):
        SupirPipeline.from_pipe(sdxl(block_out_channels=(32, 64, 96)), folder)


def test_from_pipe_of_our_own_shares_everything(pipe: SupirPipeline) -> None:
    assert SupirPipeline.from_pipe(pipe).unet is pipe.unet


def test_attention_backends(folder: Path, image: Image.Image, pipe: SupirPipeline) -> None:
    """Those of diffusers change which kernels are called, not the picture; torch's own choice is a context of torch."""
    other = SupirPipeline.from_pretrained(folder)
    other.set_progress_bar_config(disable=True)
    other.unet.set_attention_backend("_native_math")
    other.adaptor.set_attention_backend("_native_math")
    expected = pipe(image=image, output_type="np").images
    assert np.abs(other(image=image, output_type="np").images - expected).max() < 1e-2
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert np.abs(pipe(image=image, output_type="np").images - expected).max() < 1e-2
    with pytest.raises(ValueError, match="must be one of the following"):
        other.unet.set_attention_backend("faster")


def test_group_offload(folder: Path, image: Image.Image, pipe: SupirPipeline) -> None:
    other = SupirPipeline.from_pretrained(folder)
    other.set_progress_bar_config(disable=True)
    onload, offload = torch.device("cpu"), torch.device("cpu")
    other.enable_group_offload(onload_device=onload, offload_device=offload, offload_type="leaf_level")
    assert other.offload == "group"
    assert same(other(image=image, output_type="pil").images[0], pipe(image=image, output_type="pil").images[0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"strength": 0.5}, "strength has no place here: how much is kept of the photo is set by detail"),
        ({"ip_adapter_image": 1}, "IP-Adapters have no place beside it"),
        ({"height": 512}, "height has no place here: the size follows from the photo and scale"),
        ({"output_type": "latent"}, "output_type is 'latent'; it must be one of pil, np, pt"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0; it must be 1 or more"),
        ({"guidance_scale": 3.0, "text_guidance": 3.0}, "guidance_scale is text_guidance here; give one of them"),
        ({"num_images_per_prompt": 3, "generator": [torch.Generator()]}, "generator holds 1 for num_images_per_prompt"),
        ({"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "there is latents alone"),
        ({"guidance_rescale": 0.7}, "'guidance_rescale' is not an option"),
    ],
)
def test_what_has_no_place_is_said(pipe: SupirPipeline, image: Image.Image, given: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        pipe(image=image, **given)


def test_no_picture_is_said(pipe: SupirPipeline) -> None:
    for given in ({}, {"output_type": "pil"}):
        with pytest.raises(
            OptionError, match="no picture is given; the first argument, or image, holds one or several"
        ):
            pipe(**given)
