"""SupirPipeline on real classes at tiny size: every way in and out, and what must not depend on how it is run."""

from __future__ import annotations

import inspect
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import PipelineQuantizationConfig, TorchAoConfig, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from supir.errors import KeyMismatchError, OptionError, WeightsError
from supir.image import Picture, read_record
from supir.models.text import PromptTruncatedWarning
from supir.pipeline import SupirPipeline
from supir.restoration.denoiser_network import Conditions
from supir.restoration.restorer import Restorer
from supir.restoration.schedules import noise_schedule
from supir.sampling.noise import SampleNoise
from supir.sampling.sigmas import training_sigmas
from tiny import save_tiny_model, tiny_components, tiny_pipeline

QUICK = {"min_size": 16, "num_steps": 3, "scale": 1.0, "text_guidance": 2.0, "text_guidance_start": "off"}


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def picture(height: int = 37, width: int = 53, seed: int = 0, channels: int = 3, **more: object) -> Picture:
    coarse = torch.rand(1, channels, 5, 5, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return Picture(pixels=smooth, **more)


def restore(pipeline: SupirPipeline, given: Picture, **options: object) -> Tensor:
    return pipeline(given, **(QUICK | options))[0].picture.pixels


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (37, 53), (64, 64)])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_output_has_exactly_the_asked_size(pipeline: SupirPipeline, size: tuple[int, int], scale: float) -> None:
    restored = restore(pipeline, picture(*size), scale=scale, num_steps=1)
    assert restored.shape == (3, *(int(side * scale + 0.5) for side in size))
    assert restored.isfinite().all()


def test_a_result_shows_itself(tmp_path: Path) -> None:
    [restored] = tiny_pipeline()(picture(), min_size=64, num_steps=1, scale=1.0)
    assert restored.image.size == (restored.picture.width, restored.picture.height)
    assert restored.image.mode == "RGB"
    assert len(repr(restored)) < 120
    assert f"{restored.picture.width} x {restored.picture.height}" in repr(restored)


def test_what_came_with_the_picture_stays(pipeline: SupirPipeline) -> None:
    alpha = torch.linspace(0, 1, 37 * 53).view(1, 37, 53)
    given = picture(channels=1, alpha=alpha, icc=b"profile", bits=16)
    [result] = pipeline(given, **QUICK)
    assert result.picture.grey
    assert result.preview.grey
    assert result.picture.icc == b"profile"
    assert result.picture.bits == 16
    assert torch.equal(result.picture.alpha, alpha)


def test_files_and_pil_pictures(pipeline: SupirPipeline, tmp_path: Path) -> None:
    photo = Image.effect_noise((40, 30), 40).convert("RGB")
    photo.save(tmp_path / "photo.png")
    from_file, from_pil = pipeline([tmp_path / "photo.png", photo], **QUICK)
    assert torch.equal(from_file.picture.pixels, from_pil.picture.pixels)
    from_file.save(tmp_path / "restored.png")
    record = read_record(tmp_path / "restored.png")
    assert record.items() >= from_file.record.items()
    assert record["seed"] == "0"
    assert '"num_steps": 3' in record["options"]


def test_same_seed_same_picture_alone_and_in_a_batch(pipeline: SupirPipeline) -> None:
    options = pipeline.options(**(QUICK | {"s_churn": 5.0}))
    alone = [picture(64, 64, seed).pixels[None] for seed in (1, 2)]
    together = pipeline.restore_pixels(torch.cat(alone), options).pixels
    for index, pixels in enumerate(alone):
        assert torch.allclose(together[index], pipeline.restore_pixels(pixels, options).pixels[0], atol=1e-4)
    other = pipeline.restore_pixels(alone[0], options.replace(seed=1)).pixels
    assert (other[0] - together[0]).abs().max() > 0.01


def test_same_picture_in_any_tile_batch(pipeline: SupirPipeline) -> None:
    given = picture(90, 110)  # nine tiles
    expected = restore(pipeline, given, tile=64)
    for tile_batch in (2, 5):
        assert torch.allclose(restore(pipeline, given, tile=64, tile_batch=tile_batch), expected, atol=1e-4)


def test_nothing_touches_the_global_generator(pipeline: SupirPipeline) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    restore(pipeline, picture(), s_churn=5.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_guidance_off_is_plain_edm_of_the_plain_prior(pipeline: SupirPipeline) -> None:
    """Text guidance 1, control 0, no restoration guidance: Euler steps of diffusers' own UNet, written out here."""
    options = pipeline.options(**(QUICK | {"text_guidance": 1.0, "restoration_guidance": "off", "s_churn": 0.0}))
    options = options.replace(control_scale=0.0)
    pixels = picture(64, 64).pixels[None]
    latent = pipeline.restore_pixels(pixels, options).latent

    names = inspect.signature(UNet2DConditionModel.__init__).parameters
    plain = UNet2DConditionModel(**{name: value for name, value in pipeline.unet.config.items() if name in names})
    plain.load_state_dict(
        {name: value for name, value in pipeline.unet.state_dict().items() if not name.startswith("connectors.")}
    )
    words = pipeline.embed_words(options, 1)
    text_embeds = words.vector[:, :24]
    size_ids = torch.tensor([[1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0]])
    sigmas = noise_schedule(options).sigmas
    x = SampleNoise([0])(latent) * (1 + sigmas[0] ** 2).sqrt()
    with torch.no_grad():
        for sigma, following in itertools.pairwise(sigmas):
            noise = plain.eval()(
                x / (sigma**2 + 1).sqrt(),
                torch.tensor(np.interp(sigma.log(), training_sigmas().log(), np.arange(1000)), dtype=torch.float32),
                words.tokens,
                added_cond_kwargs={"text_embeds": text_embeds, "time_ids": size_ids},
            ).sample
            x = x + (following - sigma) * noise
    assert torch.allclose(latent, x, atol=1e-4)


def test_text_guidance_of_one_costs_one_network_call(pipeline: SupirPipeline) -> None:
    batches: list[int] = []
    hook = pipeline.unet.register_forward_hook(lambda module, given, output: batches.append(len(given[0])))
    try:
        restore(pipeline, picture(), text_guidance=1.0)
        assert batches == [1, 1, 1]
        restore(pipeline, picture())
        assert batches[3:] == [2, 2, 2]
    finally:
        hook.remove()


def test_the_public_second_order_solver_is_deaf_to_restoration_guidance(pipeline: SupirPipeline) -> None:
    common = {"solver": "reference_dpmpp_2m", "eta": 1.0}
    pulled = restore(pipeline, picture(), **common, restoration_guidance=0.2, control_scale_start=0.1)
    assert torch.equal(pulled, restore(pipeline, picture(), **common, restoration_guidance="off"))


@pytest.mark.parametrize("solver", ["edm_euler", "dpmpp_2m"])
def test_restoration_guidance_pulls_toward_the_anchor(pipeline: SupirPipeline, solver: str) -> None:
    pixels = picture(64, 64).pixels[None]

    def distance(tau: float | str) -> float:
        options = pipeline.options(**(QUICK | {"solver": solver, "num_steps": 6, "restoration_guidance": tau}))
        result = pipeline.restore_pixels(pixels, options)
        return float((result.latent - result.anchor).square().mean())

    assert distance(0.2) < 0.8 * distance(4.0) < 0.8 * distance("off")


@pytest.mark.parametrize("solver", ["edm_euler", "dpmpp_2m", "reference_dpmpp_2m"])
def test_a_low_start_stays_near_the_anchor(pipeline: SupirPipeline, solver: str) -> None:
    pixels = picture(64, 64).pixels[None]
    options = pipeline.options(**(QUICK | {"solver": solver, "eta": 0.0, "restoration_guidance": "off"}))

    def distance(start_sigma: float | None) -> float:
        result = pipeline.restore_pixels(pixels, options.replace(start_sigma=start_sigma))
        return float((result.latent - result.anchor).square().mean())

    if solver != "reference_dpmpp_2m":  # the public schedule of three steps has no level so low
        assert distance(0.05) < 0.01 * distance(None)
    assert distance(5.0) < distance(None)


def test_words_steer_the_result(pipeline: SupirPipeline) -> None:
    plain = restore(pipeline, picture())
    assert (restore(pipeline, picture(), prompt="a red brick wall") - plain).abs().max() > 1e-3
    assert (restore(pipeline, picture(), negative_prompt="blurry") - plain).abs().max() > 1e-3


def test_a_long_prompt_is_carried_whole_or_cut_aloud(pipeline: SupirPipeline) -> None:
    start = "bricks " * 20  # the tiny tokenizer has one token a letter
    ends = [pipeline.embed_words(pipeline.options(prompt=start + end), 1) for end in ("red", "blue")]
    assert ends[0].tokens.shape[1] % 77 == 0
    assert ends[0].tokens.shape == ends[0].negative_tokens.shape
    assert not torch.equal(ends[0].tokens, ends[1].tokens)
    with pytest.warns(PromptTruncatedWarning, match="red</w>|red"):
        cut = pipeline.embed_words(pipeline.options(prompt=start + "red", long_prompt="truncate"), 1)
    assert cut.tokens.shape[1] == 77


def test_steps_are_reported_and_can_cancel(pipeline: SupirPipeline) -> None:
    seen = []
    pipeline(picture(), **QUICK, on_step=lambda step: seen.append((step.index, step.num_steps)))
    assert seen == [(0, 3), (1, 3), (2, 3)]

    class Cancelled(Exception):
        pass

    def cancel(step: object) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        pipeline(picture(), **QUICK, on_step=cancel)


def test_the_preview_is_the_decoded_lq_latent(pipeline: SupirPipeline) -> None:
    options, pixels = pipeline.options(**QUICK), picture(64, 64).pixels[None]
    assert torch.equal(pipeline.preview_pixels(pixels, options), pipeline.restore_pixels(pixels, options).preview)


def test_autoencoder_tiles_cover_the_picture(pipeline: SupirPipeline) -> None:
    """The tiny autoencoder normalises over the whole tile, so tiles differ from the whole, but only by a little."""
    options = pipeline.options(**QUICK)
    parts = Restorer(autoencoder=pipeline.autoencoder, unet=pipeline.unet, adaptor=pipeline.adaptor, options=options)
    tiles = Restorer(
        autoencoder=pipeline.autoencoder,
        unet=pipeline.unet,
        adaptor=pipeline.adaptor,
        options=options.replace(vae_tile=128),
    )
    pixels = picture(256, 192).pixels[None]
    with torch.no_grad():
        whole = parts.encode(pixels, degraded=True).mode()
        cut = tiles.encode(pixels, degraded=True).mode()
        assert not torch.equal(whole, cut)
        assert (whole - cut).abs().mean() < 0.5 * whole.std()
        assert tiles.decode(whole).shape == pixels.shape


def test_save_and_load_round_trip(pipeline: SupirPipeline, model_folder: Path) -> None:
    again = SupirPipeline.from_pretrained(model_folder)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(restore(again, picture()), restore(pipeline, picture()))
    [result] = again(picture(), **QUICK)
    assert len(result.record["model_sha256"]) == 64


def test_a_models_own_presets_are_saved_and_used(tmp_path: Path) -> None:
    tiny_pipeline(presets={"all": {"min_size": 64}, "fast": {"num_steps": 2}}).save_pretrained(tmp_path)
    again = SupirPipeline.from_pretrained(tmp_path)
    assert (again.options("fast").num_steps, again.options("fast").min_size) == (2, 64)
    assert again.options("fast", num_steps=5).num_steps == 5


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "no model_index.json"),
        ("{", "not valid JSON"),
        ('{"_class_name": "StableDiffusionPipeline"}', "does not describe a SupirPipeline"),
        ('{"_class_name": "SupirPipeline", "unet": ["os", "system"]}', "wants unet from 'os'"),
    ],
)
def test_a_wrong_model_folder_is_refused(tmp_path: Path, index: str | None, message: str) -> None:
    if index is not None:
        (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(WeightsError, match=message):
        SupirPipeline.from_pretrained(tmp_path)


def test_a_folder_that_lacks_weights_is_refused(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    kept = {name: value for name, value in load_file(weights).items() if name != "connectors.3.to_q.weight"}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(KeyMismatchError, match=r"lacks 1 weights, such as connectors\.3\.to_q\.weight"):
        SupirPipeline.from_pretrained(tmp_path / "model")


def test_unknown_options_are_refused(pipeline: SupirPipeline) -> None:
    with pytest.raises(OptionError, match="'stepz' is not an option"):
        pipeline(picture(), stepz=3)


def lora(rank: int = 2) -> dict[str, Tensor]:
    """An SDXL LoRA under diffusers' names, for one attention of the UNet."""
    name = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    weight = tiny_components()["unet"].down_blocks[1].attentions[0].transformer_blocks[0].attn2.to_k.weight
    torch.manual_seed(0)
    return {
        f"{name}.lora_A.weight": torch.randn(rank, weight.shape[1]),
        f"{name}.lora_B.weight": torch.randn(weight.shape[0], rank),
    }


def test_lora_changes_the_output_and_can_be_removed(model_folder: Path) -> None:
    pipeline = SupirPipeline.from_pretrained(model_folder)
    pipeline.set_progress_bar_config(disable=True)
    plain = restore(pipeline, picture())
    pipeline.load_lora_weights(lora())
    changed = restore(pipeline, picture())
    assert (changed - plain).abs().max() > 1e-3
    pipeline.unload_lora_weights()
    assert torch.equal(restore(pipeline, picture()), plain)


def test_model_offload_gives_the_same_picture(pipeline: SupirPipeline, model_folder: Path) -> None:
    offloaded = SupirPipeline.from_pretrained(model_folder)
    offloaded.set_progress_bar_config(disable=True)
    offloaded.enable_model_cpu_offload(device="cpu:0")  # an accelerator's hooks, on the only device there is
    assert all(hasattr(getattr(offloaded, name), "_hf_hook") for name in ("unet", "adaptor", "autoencoder"))
    assert torch.equal(restore(offloaded, picture()), restore(pipeline, picture()))


def test_layerwise_casting_stores_eight_bits(pipeline: SupirPipeline, model_folder: Path) -> None:
    cast = SupirPipeline.from_pretrained(model_folder)
    cast.set_progress_bar_config(disable=True)
    for model in (cast.unet, cast.adaptor):
        model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
        assert model.down_blocks[0].resnets[0].conv1.weight.dtype == torch.float8_e4m3fn
    difference = (restore(cast, picture()) - restore(pipeline, picture())).abs()
    assert 0 < difference.mean() < 0.1


def test_a_quantisation_config_works_on_our_classes(pipeline: SupirPipeline, model_folder: Path) -> None:
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is an extra: pip install 'supir[quantize]'")
    kinds = {name: TorchAoConfig(torchao.Int8WeightOnlyConfig()) for name in ("unet", "adaptor")}
    quantised = SupirPipeline.from_pretrained(
        model_folder, quantization_config=PipelineQuantizationConfig(quant_mapping=kinds)
    )
    quantised.set_progress_bar_config(disable=True)
    assert type(quantised.unet.mid_block.attentions[0].proj_in.weight).__name__ == "Int8Tensor"
    assert type(quantised.adaptor.mid_block.attentions[0].proj_in.weight).__name__ == "Int8Tensor"
    difference = (restore(quantised, picture()) - restore(pipeline, picture())).abs()
    assert 0 < difference.mean() < 0.02


def test_reference_preset_stretches_to_multiples_and_truncates(pipeline: SupirPipeline) -> None:
    result = restore(pipeline, picture(50, 70), preset="reference", min_size=64, num_steps=1)
    assert result.shape == (3, 50, 70)
    levels = (result + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-3)


def test_reference_preset_makes_no_tiles_as_the_public_command(pipeline: SupirPipeline) -> None:
    """Reference section 13: the command's sampler is the untiled one, and use_tile_vae is off."""
    coder, seen = pipeline.autoencoder, set()
    parts = (pipeline.unet, coder.degraded_encoder, coder.encoder, coder.decoder)
    hooks = [
        part.register_forward_pre_hook(lambda part, given: seen.add((type(part), given[0].shape[-1]))) for part in parts
    ]
    try:
        restore(pipeline, picture(64, 1216), preset="reference", num_steps=1)
        assert {width for _, width in seen} == {1216, 152}
        restore(pipeline, picture(64, 1216), preset="reference", num_steps=1, tile=1024, vae_tile=1024)
        assert {width for _, width in seen} > {1216, 152}
    finally:
        for hook in hooks:
            hook.remove()


def test_finished_conditions_take_the_place_of_words(pipeline: SupirPipeline) -> None:
    options = pipeline.options(**QUICK)
    words = pipeline.embed_words(options, 1)
    bare = SupirPipeline(
        **(tiny_components() | dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")))
    )
    bare.set_progress_bar_config(disable=True)
    pixels = picture(64, 64).pixels[None]
    given = Conditions(
        tokens=words.tokens,
        vector=words.vector,
        negative_tokens=words.negative_tokens,
        negative_vector=words.negative_vector,
    )
    expected = pipeline.restore_pixels(pixels, options).pixels
    assert torch.equal(bare.restore_pixels(pixels, options, conditions=given).pixels, expected)
