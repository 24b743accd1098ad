"""Checkpoints with more in them than a model, other kinds of models, weights in 8 bits: used, told, or refused."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from loading import load_components, load_single_files
from supir.errors import KeyMismatchError, WeightsError
from supir.weights.checkpoint import StateDict
from supir.weights.layout import AUTOENCODER, CLIP_G, CLIP_L, COMPONENTS, CONNECTORS, UNET
from supir.weights.plan import Plan, make_plan
from supir.weights.report import HARMLESS, grouped, is_harmless
from weights.test_full_size_keys import ShapesOnly
from weights.tiny_files import HEAD_DIMS, saved, sdxl_weights, stripped, supir_weights, without

EVERY = {"components": ("unet",), "head_dims": HEAD_DIMS}
HARMLESS_KEYS: dict[str, Tensor] = {
    "model_ema.decay": torch.tensor(0.9999),
    "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(2),
    "denoiser.sigmas": torch.zeros(1000),
    "alphas_cumprod": torch.linspace(0.999, 0.0047, 1000),
    "alphas_cumprod_prev": torch.zeros(1000),
    "sqrt_one_minus_alphas_cumprod": torch.zeros(1000),
    "sqrt_recip_alphas_cumprod": torch.zeros(1000),
    "sqrt_recipm1_alphas_cumprod": torch.zeros(1000),
    "log_one_minus_alphas_cumprod": torch.zeros(1000),
    "posterior_log_variance_clipped": torch.zeros(1000),
    "posterior_mean_coef1": torch.zeros(1000),
    "betas": torch.zeros(1000),
    "global_step": torch.tensor(7, dtype=torch.int16),
    CLIP_L + "embeddings.position_ids": torch.arange(77)[None],
    "conditioner.embedders.0.transformer.text_projection.weight": torch.zeros(2, 2),
    "conditioner.embedders.0.logit_scale".replace("0.logit", "0.transformer.logit"): torch.tensor(4.6),
    CLIP_G + "logit_scale": torch.tensor(4.6),
    CLIP_G + "attn_mask": torch.ones(77, 77, dtype=torch.bool),
    CLIP_G + "visual.conv1.weight": torch.zeros(2, 2),
    "first_stage_model.loss.discriminator.main.0.weight": torch.zeros(2),
    "first_stage_model.loss.logvar": torch.tensor(0.0),
    "first_stage_model.loss.discriminator.main.3.num_batches_tracked": torch.tensor(3),
}


def whole(**changed: Tensor) -> dict[str, Tensor]:
    """SDXL and SUPIR in one, with what is changed or added."""
    return sdxl_weights() | supir_weights() | changed


def planned(components: Sequence[str] = ("unet",), **changed: Tensor) -> Plan:
    """The plan for it."""
    return make_plan(StateDict(whole(**changed)), components=components, head_dims=HEAD_DIMS)


def test_what_is_known_to_be_harmless_is_left_out_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = planned(COMPONENTS, **HARMLESS_KEYS).report
    assert report.ok
    assert set(report.dropped) == set(HARMLESS_KEYS)
    assert not report.unexpected
    for key in sdxl_weights() | supir_weights():
        assert not is_harmless(key), key
    assert all(HARMLESS.values())


def test_unknown_keys_are_a_warning_by_name_and_number() -> None:
    """Where every place is filled they cannot make a wrong model, whatever their type."""
    extra = {f"somebodys.layer.{i}.weight": torch.zeros(2, dtype=torch.uint8) for i in range(40)}
    extra |= {"a_note": torch.zeros(3, dtype=torch.int8)}
    with pytest.warns(UserWarning, match=r"41 keys are left out.*somebodys\.layer\.\* \(40\), a_note$"):
        report = planned(**extra).report
    assert report.ok
    assert set(report.unexpected) == set(extra)
    assert "41 unexpected" in report.summary()
    assert grouped(f"{letter}.x.y" for letter in "abcdefgh").endswith(", and 2 more")


WEIGHT = UNET + "input_blocks.1.0.in_layers.2.weight"
QUANTISED: dict[str, tuple[dict[str, Tensor], str]] = {
    "bool": ({WEIGHT: torch.zeros(32, 32, 3, 3, dtype=torch.bool)}, "1 of its weights are quantised.*BOOL"),
    "int8": (
        {WEIGHT: torch.zeros(32, 32, 3, 3, dtype=torch.int8)},
        r"quantised, such as .*layers\.2\.weight of.*I8",
    ),
    "bitsandbytes int8": (
        {WEIGHT: torch.zeros(32, 32, 3, 3, dtype=torch.int8), WEIGHT.replace("weight", "SCB"): torch.ones(32)},
        "quantised, weights quantised by bitsandbytes, such as .*I8",
    ),
    "bitsandbytes 4 bits": (
        {
            WEIGHT: torch.zeros(4608, 1, dtype=torch.uint8),
            WEIGHT + ".absmax": torch.ones(144),
            WEIGHT + ".quant_state.bitsandbytes__nf4": torch.zeros(9, dtype=torch.uint8),
        },
        "quantised, weights quantised by bitsandbytes, such as .*U8",
    ),
    "scales that fit nothing": (
        {WEIGHT.removesuffix("weight") + "scale_weight": torch.ones(32, 9)},
        r"scale_weight, and so 8-bit weights whose scales fit none of them",
    ),
    "blocks of a scale each": (
        {
            WEIGHT: torch.zeros(32, 32, 3, 3, dtype=torch.uint8),
            WEIGHT.removesuffix("weight") + "weight_scale": torch.ones(32, 2),
        },
        "quantised, 8-bit weights whose scales fit none of them, such as .*U8",
    ),
    "a LoRA not merged": ({UNET + "out.2.lora_A.weight": torch.zeros(2, 2)}, "a LoRA that is not merged"),
    "LCM's whole UNet": (
        {UNET + "time_embed.cond_proj.weight": torch.zeros(2, 2)},
        "guidance as an input, as in SDXL-LCM's whole UNet",
    ),
}


@pytest.mark.parametrize("name", QUANTISED)
def test_what_would_be_another_model_is_refused_by_name(name: str) -> None:
    changed, reason = QUANTISED[name]
    for strict in (True, False):
        with pytest.raises(WeightsError, match=reason) as caught:
            load_components(whole(**changed), strict=strict, **EVERY)
        assert len(str(caught.value).splitlines()) == 1


def test_scales_of_8_bit_weights_are_multiplied_in(tmp_path: Path) -> None:
    """One scale a weight, or one a channel; those of inputs, and the marks beside them, belong to no weight."""
    plain = {WEIGHT: whole()[WEIGHT], UNET + "out.2.weight": whole()[UNET + "out.2.weight"]}
    scales = {WEIGHT: torch.tensor(0.031), UNET + "out.2.weight": torch.rand(4, 1) + 0.5}
    stored, expected = {}, {}
    for key, weight in plain.items():
        by_channel = scales[key].reshape(-1, 1, 1, 1)
        stored[key] = (weight / by_channel).to(torch.float8_e4m3fn)
        expected[key] = stored[key].float() * by_channel
    beside = {
        WEIGHT.removesuffix("weight") + "scale_weight": scales[WEIGHT],
        WEIGHT.removesuffix("weight") + "scale_input": torch.tensor(9.0),
        UNET + "out.2.weight_scale": scales[UNET + "out.2.weight"],
        UNET + "out.2.comfy_quant": torch.zeros(30, dtype=torch.uint8),
        "scaled_fp8": torch.empty(2, dtype=torch.float8_e4m3fn),
    }
    path = saved(whole(**stored, **beside), tmp_path / "scaled.safetensors")
    components, report = load_single_files(path, **EVERY)
    unet = components["unet"]
    assert torch.equal(unet.down_blocks[0].resnets[0].conv1.weight, expected[WEIGHT])
    assert torch.equal(unet.conv_out.weight, expected[UNET + "out.2.weight"])
    assert not report.unexpected


def test_plain_8_bit_floats_are_weights() -> None:
    narrow = whole()[WEIGHT].to(torch.float8_e5m2)
    components, _ = load_components(whole(**{WEIGHT: narrow}), **EVERY)
    assert torch.equal(components["unet"].down_blocks[0].resnets[0].conv1.weight, narrow.float())


def test_velocity_is_predicted_where_the_file_says_so() -> None:
    plan = planned(v_pred=torch.zeros(0))
    assert plan.components[0].model.config.prediction_type == "v_prediction"
    assert plan.report.dropped == ("v_pred",)
    assert planned().components[0].model.config.prediction_type == "epsilon"
    for marker in ({"ztsnr": torch.zeros(0)}, {"alphas_cumprod": torch.linspace(0.999, 0, 1000)}):
        with pytest.warns(UserWarning, match="zero terminal SNR"):
            planned(v_pred=torch.zeros(0), **marker)


def _renamed(tensors: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {new + key.removeprefix(old) if key.startswith(old) else key: tensor for key, tensor in tensors.items()}


def _kinds() -> dict[str, tuple[dict[str, Tensor], str]]:
    """Models of other kinds under their own keys, and what must be said of each."""
    base = sdxl_weights()
    unet = {key: tensor for key, tensor in base.items() if key.startswith(UNET)}
    old_unet = without(unet, UNET + "label_emb.")
    first = UNET + "input_blocks.0.0.weight"
    context = {key: torch.zeros(4, 768) for key in unet if key.endswith("attn2.to_k.weight")}
    towers = {key: tensor for key, tensor in base.items() if key.startswith(CLIP_G)}
    return {
        "SD 1.5": (
            old_unet | _renamed(stripped(base, CLIP_L), "", "cond_stage_model.transformer.text_model."),
            "a Stable Diffusion 1 model",
        ),
        "SD 1.5 by its width": (unet | context, "a Stable Diffusion 1 model"),
        "SD 2": (old_unet | _renamed(stripped(towers, CLIP_G), "", "cond_stage_model.model."), "a Stable Diffusion 2"),
        "SD without towers": (old_unet, "a Stable Diffusion 1 or 2 model"),
        "refiner": (
            unet | _renamed(towers, CLIP_G, "conditioner.embedders.0.model."),
            "SDXL's refiner, not its base.*Give the base that belongs to it",
        ),
        "inpainting": (base | {first: torch.zeros(32, 9, 3, 3)}, "an inpainting model, whose UNet takes 5 channels"),
        "editing": (base | {first: torch.zeros(32, 8, 3, 3)}, "an editing model"),
        "Playground": (base | {"edm_mean": torch.zeros(4)}, "a Playground v2.5 model"),
        "CosXL": (base | {"edm_vpred.sigma_max": torch.tensor(120.0)}, "a CosXL model"),
        "kohya's LoRA": (
            {f"lora_unet_x.{part}.weight": torch.zeros(2, 2) for part in ("lora_up", "lora_down")},
            "a LoRA.*load_lora_weights",
        ),
        "diffusers' LoRA": ({"unet.a.lora_A.weight": torch.zeros(2, 2)}, "a LoRA"),
        "LyCORIS": ({"lora_unet_x.hada_w1_a": torch.zeros(2, 2)}, "a LoRA"),
        "textual inversion": ({"clip_l": torch.zeros(4, 768), "clip_g": torch.zeros(4, 1280)}, "a textual inversion"),
        "ControlNet": ({"controlnet_cond_embedding.conv_in.weight": torch.zeros(2)}, "a ControlNet"),
        "IP-Adapter": ({"image_proj.proj.weight": torch.zeros(2, 2)}, "an IP-Adapter"),
        "Flux": ({"double_blocks.0.img_attn.qkv.weight": torch.zeros(2, 2)}, "a Flux model"),
        "SD 3": ({"model.diffusion_model.joint_blocks.0.x": torch.zeros(2)}, "a Stable Diffusion 3 model"),
        "ZeRO-3": ({key: torch.zeros(0) for key in base}, "one process's part of a DeepSpeed ZeRO-3.*zero_to_fp32"),
    }


KINDS = _kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_are_called_by_their_names(tmp_path: Path, kind: str) -> None:
    """As the base, and where the SUPIR file should be; lenient or not; in one line."""
    tensors, said = KINDS[kind]
    path = saved(tensors, tmp_path / "model.safetensors")
    base = saved({"model.control_model.out.bias": torch.zeros(1)}, tmp_path / "supir.safetensors")
    for files in ((path, base), (base, path)):
        with pytest.raises(WeightsError, match=said) as caught:
            load_single_files(*files, strict=False, head_dims=HEAD_DIMS)
        assert len(str(caught.value).splitlines()) == 1
        assert str(path) in str(caught.value)


def test_a_second_file_without_a_part_of_supir_is_refused(tmp_path: Path) -> None:
    base = saved(sdxl_weights(), tmp_path / "base.safetensors")
    other = saved({"layer.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"other\.safetensors: holds none of the parts that SUPIR adds"):
        load_single_files(base, other, head_dims=HEAD_DIMS)


def test_absent_parts_are_named_with_where_they_are_had() -> None:
    cases: list[tuple[dict[str, Tensor], str]] = [
        (sdxl_weights(), r"no adaptor, connectors and degraded encoder; .*SUPIR file.*--lenient"),
        (supir_weights(), "no UNet, autoencoder, text tower CLIP-L and text tower CLIP-G; give an SDXL"),
        (without(whole(), CONNECTORS), "no connectors; .*SUPIR file.*--lenient"),
        (without(whole(), CLIP_L), r"no text tower CLIP-L; .*--text \(text=\)$"),
        (without(whole(), AUTOENCODER), r"no autoencoder and degraded encoder; .*--vae"),
    ]
    for tensors, said in cases:
        with pytest.raises(KeyMismatchError, match=said):
            load_components(tensors, head_dims=HEAD_DIMS)


def test_sizes_of_no_model_are_a_sentence() -> None:
    odd: list[tuple[str, dict[str, Tensor]]] = [
        ("unet", {UNET + "label_emb.0.0.weight": torch.zeros(3)}),
        ("unet", {UNET + "middle_block.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(())}),
        ("text_encoder", {CLIP_L + "embeddings.token_embedding.weight": torch.zeros(3)}),
        ("autoencoder", {AUTOENCODER + "encoder.down.0.block.0.conv2.weight": torch.zeros(33, 33, 3, 3)}),
    ]
    for component, changed in odd:
        shapes = {key: tuple(tensor.shape) for key, tensor in whole(**changed).items()}
        with pytest.raises(KeyMismatchError):
            make_plan(ShapesOnly(shapes), components=(component,), head_dims=HEAD_DIMS)
