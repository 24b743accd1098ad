"""LoRAs onto a pipeline: ours and SDXL's change it, others are refused in a sentence and leave it as it was."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from supir.errors import OptionError, WeightsError
from supir.models.quantized import quantize_weights
from supir.models.unet import SupirUNet
from supir.pipeline import SupirPipeline
from supir.weights.catalog import file_hash
from tiny import TRUNK, tiny_components, tiny_pipeline
from weights.tiny_files import saved, supir_weights

CONTEXT = TRUNK["cross_attention_dim"]


def _fresh() -> SupirPipeline:
    """A pipeline whose networks may be changed."""
    unet, adaptor = (copy.deepcopy(tiny_components()[name]) for name in ("unet", "adaptor"))
    return tiny_pipeline(unet=unet, adaptor=adaptor, text_encoder=None, text_encoder_2=None)


@pytest.fixture
def pipeline() -> SupirPipeline:
    return _fresh()


def _lora(network: Any, prefix: str, endings: tuple[str, ...], width: int | None = None) -> dict[str, Tensor]:
    """Rank 2, in diffusers' names, onto every layer that ends so; of another width of input where one is given."""
    found = {}
    for name, module in network.named_modules():
        if name.endswith(endings) and hasattr(module, "weight"):
            rows, columns = module.weight.shape[:2]
            found[f"{prefix}.{name}.lora_A.weight"] = torch.randn(2, width or columns)
            found[f"{prefix}.{name}.lora_B.weight"] = torch.randn(rows, 2)
    return found


def _of_unet(pipeline: SupirPipeline, width: int | None = None) -> dict[str, Tensor]:
    return _lora(pipeline.unet, "unet", ("attn2.to_k",), width)


def _ours(pipeline: SupirPipeline) -> dict[str, Tensor]:
    return _lora(pipeline.adaptor, "adaptor", ("attn1.to_q",)) | {
        key: tensor
        for key, tensor in _lora(pipeline.unet, "unet", ("to_q",)).items()
        if key.startswith("unet.connectors.")
    }


def _answer(pipeline: SupirPipeline) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 4, 16, 16, generator=generator)
    text = torch.randn(1, 3, CONTEXT, generator=generator)
    conditions = {"vector": torch.randn(1, TRUNK["projection_class_embeddings_input_dim"], generator=generator)}
    with torch.no_grad():
        control = pipeline.adaptor(latent, torch.tensor([500.0]), text, conditions, latent)
        answer: Tensor = pipeline.unet(
            latent, torch.tensor([500.0]), text, added_cond_kwargs=conditions, control=control
        ).sample
    return answer


def test_our_own_adapter_changes_the_result(pipeline: SupirPipeline, tmp_path: Path) -> None:
    """The same in each pipeline, and it comes off again."""
    before = _answer(pipeline)
    file = saved(_ours(pipeline), tmp_path / "lora.safetensors")
    pipeline.load_lora_weights(file)
    changed = _answer(pipeline)
    assert (changed - before).abs().max() > 1e-3
    other = _fresh()
    other.load_lora_weights(file)
    assert torch.equal(_answer(other), changed)
    assert set(pipeline.get_list_adapters()) == {"unet", "adaptor"}
    [name] = pipeline.get_list_adapters()["adaptor"]
    pipeline.set_adapters(name, 0.5)
    assert not torch.equal(_answer(pipeline), changed)
    pipeline.delete_adapters(name)
    assert torch.equal(_answer(pipeline), before)


def test_one_of_sdxl_from_a_file_a_folder_or_memory(pipeline: SupirPipeline, tmp_path: Path) -> None:
    torch.manual_seed(0)
    lora = _of_unet(pipeline)
    file = saved(lora, tmp_path / "pytorch_lora_weights.safetensors")
    saved(lora, tmp_path / "other.safetensors")
    answers = []
    for source, how in ((lora, {}), (file, {}), (tmp_path, {}), (tmp_path, {"weight_name": "other.safetensors"})):
        each = _fresh()
        each.load_lora_weights(source, adapter_name="style", **how)
        answers.append(_answer(each))
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    assert not torch.equal(answers[0], _answer(pipeline))


def test_the_record_names_what_acts(pipeline: SupirPipeline, tmp_path: Path) -> None:
    """Which file, how strongly; nothing where none is loaded, or where it is switched off."""
    assert pipeline.adapters_in_use == {}
    file = saved(_of_unet(pipeline), tmp_path / "style.safetensors")
    pipeline.load_lora_weights(file, adapter_name="style")
    pipeline.load_lora_weights(_ours(pipeline), adapter_name="domain")
    pipeline.set_adapters(["style", "domain"], [0.5, 1.0])
    domain, style = pipeline.adapters_in_use["adapters"].split(", ")
    assert style == f"style 0.5 sha256:{file_hash(file)}"
    assert re.fullmatch(r"domain 1 sha256:[0-9a-f]{64}", domain)
    assert pipeline._record(pipeline.options())["adapters"] == f"{domain}, {style}"
    pipeline.set_adapters("style")
    assert pipeline.adapters_in_use["adapters"] == f"style 1 sha256:{file_hash(file)}"
    pipeline.disable_lora()
    assert pipeline.adapters_in_use == {}


def test_both_in_one_file(pipeline: SupirPipeline, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pipeline.load_lora_weights(saved(_of_unet(pipeline) | _ours(pipeline), tmp_path / "both.safetensors"), "both")
    assert pipeline.get_list_adapters() == {"unet": ["both"], "adaptor": ["both"]}


def _strangers(pipeline: SupirPipeline, folder: Path) -> dict[str, tuple[Any, str]]:
    broken = _of_unet(pipeline)
    key = next(key for key in broken if key.endswith("lora_B.weight"))
    broken[key] = torch.randn(7, 2)
    page = folder / "page.safetensors"
    page.write_text("<!doctype html><title>Sign in</title>")
    nowhere = {
        "unet.nowhere.to_q.lora_A.weight": torch.zeros(2, 4),
        "unet.nowhere.to_q.lora_B.weight": torch.zeros(4, 2),
    }
    flux = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.zeros(2, 4)}
    return {
        "SD 1": (_of_unet(pipeline, 768), "a LoRA of Stable Diffusion 1: it reads text 768 channels wide"),
        "SD 2": (_of_unet(pipeline, 1024), "a LoRA of Stable Diffusion 2"),
        "another": (_of_unet(pipeline, 99), "a LoRA of another base: it reads text 99 channels wide"),
        "Flux": (flux, "a LoRA of Flux"),
        "wrong shape": (broken, "this LoRA does not fit the model: size mismatch"),
        "nowhere": (nowhere, "does not fit the model|no layer of this LoRA has a place"),
        "a model": (supir_weights(), "is no LoRA"),
        "a web page": (page, "a web page, no weights file"),
        "absent": (folder / "absent.safetensors", "there is no such file"),
        "no file": (folder / "empty", "holds 0 .safetensors files"),
    }


def test_others_are_refused_in_a_line_and_leave_the_model_as_it_was(pipeline: SupirPipeline, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    before = _answer(pipeline)
    for kind, (source, said) in _strangers(pipeline, tmp_path).items():
        for given in (source, saved(source, tmp_path / "lora.safetensors") if isinstance(source, dict) else source):
            with pytest.raises(WeightsError, match=said) as caught:
                pipeline.load_lora_weights(given)
            assert len(str(caught.value).splitlines()) == 1, kind
            assert len(str(caught.value)) < 450, kind
            assert not any(pipeline.get_list_adapters().values()), kind
    assert torch.equal(_answer(pipeline), before)
    pipeline.load_lora_weights(_of_unet(pipeline))
    assert not torch.equal(_answer(pipeline), before)


def test_layers_without_a_place_are_counted(pipeline: SupirPipeline) -> None:
    lora = _of_unet(pipeline)
    lora |= {"unet.nowhere.to_k.lora_A.weight": torch.zeros(2, 4), "unet.nowhere.to_k.lora_B.weight": torch.zeros(4, 2)}
    layers = len(lora) // 2
    with pytest.warns(UserWarning, match=f"1 of its {layers} layers have no place in this model"):
        pipeline.load_lora_weights(lora)


def test_what_is_stored_in_8_bits_takes_a_lora_beside_it_and_none_fused(pipeline: SupirPipeline) -> None:
    quantize_weights(pipeline.unet, "int8")
    before = _answer(pipeline)
    pipeline.load_lora_weights(_of_unet(pipeline))
    changed = _answer(pipeline)
    assert not torch.equal(changed, before)
    with pytest.raises(OptionError, match=r"cannot be fused into the unet, whose weights are stored as int8"):
        pipeline.fuse_lora()
    assert torch.equal(_answer(pipeline), changed)


def test_fused_is_the_same_as_beside(pipeline: SupirPipeline) -> None:
    pipeline.load_lora_weights(_ours(pipeline) | _of_unet(pipeline))
    beside = _answer(pipeline)
    pipeline.fuse_lora()
    assert torch.allclose(_answer(pipeline), beside, atol=1e-3)
    assert isinstance(pipeline.unet, SupirUNet)
