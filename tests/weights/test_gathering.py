"""SDXL as people have it, in a file, in a folder, in parts: each becomes the same model, or one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from loading import load_single_files
from supir.cli.main import app
from supir.errors import KeyMismatchError, WeightsError
from supir.pipeline import SupirPipeline
from supir.weights.catalog import files_hash
from supir.weights.layout import AUTOENCODER, CLIP_G, CLIP_L, UNET
from tiny import save_tiny_model, tiny_components
from weights.tiny_files import (
    HEAD_DIMS,
    TOKENIZERS,
    autoencoder_file,
    hub_modules,
    same_weights,
    save_hub_folder,
    saved,
    sdxl_weights,
    stripped,
    supir_weights,
    without,
)

TOWERS = (CLIP_L, CLIP_G)
AUTOENCODER_ALONE: dict[str, Any] = {"components": ("autoencoder",), "head_dims": HEAD_DIMS}
TOWERS_ALONE: dict[str, Any] = {"components": ("text_encoder", "text_encoder_2"), "head_dims": HEAD_DIMS}
UNET_ALONE: dict[str, Any] = {"components": ("unet",), "head_dims": HEAD_DIMS}


@pytest.fixture(scope="module")
def supir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(supir_weights(), tmp_path_factory.mktemp("supir") / "SUPIR-v0Q.safetensors")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base model."""
    return save_hub_folder(tmp_path_factory.mktemp("hub") / "sdxl-base")


def test_a_folder_of_diffusers_is_a_base(hub: Path, supir: Path, tmp_path: Path) -> None:
    """Each component by name, its head sizes from its configuration; in shards, too, and from the hub's cache."""
    components, report = load_single_files(hub, supir)
    assert same_weights(components)
    assert report.ok
    assert not report.unexpected
    cache = tmp_path / "models--stabilityai--sdxl" / "snapshots" / "462165"
    save_hub_folder(cache, max_shard_size="200KB")
    components, _ = load_single_files(cache.parents[1], supir, components=("unet",))
    assert same_weights(components)
    index = cache / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    components, _ = load_single_files(index, supir, **UNET_ALONE)
    assert same_weights(components)


def test_files_of_a_variant_are_taken_where_there_are_no_others(supir: Path, tmp_path: Path) -> None:
    folder = save_hub_folder(tmp_path / "base", variant="fp16", max_shard_size="300KB")
    for module in hub_modules():
        assert not list((folder / module).glob("*model.safetensors"))
    components, _ = load_single_files(folder, supir, components=("unet", "autoencoder"))
    assert same_weights(components)
    for file in (folder / "unet").glob("*"):
        if "safetensors" in file.name:
            file.unlink()
    (folder / "unet" / "diffusion_pytorch_model.msgpack").touch()
    with pytest.raises(WeightsError, match=r"unet: holds no weights that are read \(config\.json, diffusion_pyt"):
        load_single_files(folder, supir)


def test_what_is_no_sdxl_folder_is_named(hub: Path, supir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(hub, folder)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(WeightsError, match="a StableDiffusionPipeline, and no SDXL"):
        load_single_files(folder, supir)
    shutil.copyfile(hub / "model_index.json", folder / "model_index.json")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 167335342\n")
    with pytest.raises(WeightsError, match=r"vae/diffusion_pytorch_model\.safetensors: a git-LFS pointer"):
        load_single_files(folder, supir)
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(config | {"_class_name": "AutoencoderTiny"}))
    with pytest.raises(WeightsError, match="holds a AutoencoderTiny, where SDXL has a AutoencoderKL"):
        load_single_files(folder, supir)
    (tmp_path / "photos").mkdir()
    with pytest.raises(WeightsError, match="photos: holds no weights that are read"):
        load_single_files(tmp_path / "photos", supir)
    shutil.rmtree(folder / "vae")
    with pytest.raises(KeyMismatchError, match=r"hold no autoencoder; name a file or folder that has one with --vae"):
        load_single_files(folder, supir)


def _before_0_17(key: str) -> str:
    """Diffusers' name of an autoencoder's weight as it once was."""
    was = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    return next((key.replace(new, old) for new, old in was.items() if new in key), key)


def _otherwise_named(hub: Path, folder: Path) -> Path:
    """The towers as the other major version of transformers names them, with a buffer that it once kept."""
    for name in ("text_encoder", "text_encoder_2"):
        tensors = load_file(hub / name / "model.safetensors")
        inner = any(key.startswith("text_model.") for key in tensors)
        named = {}
        for key, tensor in tensors.items():
            moves = not key.startswith("text_projection.")
            named[(key.removeprefix("text_model.") if inner else f"text_model.{key}") if moves else key] = tensor
        assert named.keys() != tensors.keys()
        named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        saved(named, folder / name / "model.safetensors")
        shutil.copyfile(hub / name / "config.json", folder / name / "config.json")
    return folder


def _autoencoders(folder: Path, hub: Path) -> dict[str, Path]:
    """The same autoencoder in every form in which it is published."""
    modules = hub_modules()
    new = modules["vae"].state_dict()
    old = {_before_0_17(key): tensor for key, tensor in new.items()}
    assert old.keys() != new.keys()
    return {
        "a file of its own": saved(autoencoder_file(sdxl_weights()), folder / "sdxl_vae.safetensors"),
        "a file of diffusers": saved(new, folder / "diffusers_vae.safetensors"),
        "an old file of diffusers": saved(old, folder / "old_vae.safetensors"),
        "an SDXL file": saved(sdxl_weights(), folder / "whole.safetensors"),
        "a component's folder": hub / "vae",
        "an SDXL folder": hub,
    }


def test_a_checkpoint_without_autoencoder_takes_one(hub: Path, supir: Path, tmp_path: Path) -> None:
    pruned = saved(without(sdxl_weights(), AUTOENCODER), tmp_path / "pruned.safetensors")
    with pytest.raises(KeyMismatchError, match=r"hold no autoencoder; name a file .* with --vae"):
        load_single_files(pruned, supir, strict=False, head_dims=HEAD_DIMS)
    for kind, vae in _autoencoders(tmp_path, hub).items():
        components, _ = load_single_files(pruned, supir, vae=vae, **AUTOENCODER_ALONE)
        assert same_weights(components), kind


def test_an_autoencoder_replaces_the_whole_of_the_base_s(supir: Path, tmp_path: Path) -> None:
    """None of its weights are the base's, which may lack what the base has: then it is said to be missing."""
    other = {key: tensor + 1 for key, tensor in autoencoder_file(sdxl_weights()).items()}
    base = saved(sdxl_weights(), tmp_path / "base.safetensors")
    found, _ = load_single_files(base, supir, vae=saved(other, tmp_path / "vae.safetensors"), **AUTOENCODER_ALONE)
    before = tiny_components()["autoencoder"].state_dict()
    for key, tensor in found["autoencoder"].state_dict().items():
        assert torch.equal(tensor, before[key] + (not key.startswith("degraded_encoder.")))
    del other["decoder.conv_in.bias"]
    with pytest.raises(KeyMismatchError, match=r"missing: autoencoder\.decoder\.conv_in\.bias"):
        load_single_files(base, supir, vae=saved(other, tmp_path / "vae.safetensors"), **AUTOENCODER_ALONE)


def test_the_autoencoder_of_another_model_is_refused(hub: Path, supir: Path, tmp_path: Path) -> None:
    shutil.copytree(hub / "vae", tmp_path / "vae")
    config = json.loads((hub / "vae" / "config.json").read_text())
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.18215}))
    with pytest.raises(WeightsError, match=r"multiplies latents by 0\.18215, the base by 0\.13025"):
        load_single_files(hub, supir, vae=tmp_path / "vae")
    lora = saved({"lora_unet_x.lora_up.weight": torch.zeros(2, 1)}, tmp_path / "lora.safetensors")
    with pytest.raises(WeightsError, match="a LoRA"):
        load_single_files(hub, supir, vae=lora)
    unet = saved({"model.diffusion_model.out.2.bias": torch.zeros(4)}, tmp_path / "unet.safetensors")
    with pytest.raises(WeightsError, match="holds no autoencoder of SDXL, which --vae needs"):
        load_single_files(hub, supir, vae=unet)


def test_a_checkpoint_without_text_towers_takes_them(hub: Path, supir: Path, tmp_path: Path) -> None:
    pruned = saved(without(sdxl_weights(), *TOWERS), tmp_path / "pruned.safetensors")
    with pytest.raises(KeyMismatchError, match=r"hold no text tower CLIP-L and text tower CLIP-G; .* --text"):
        load_single_files(pruned, supir, head_dims=HEAD_DIMS)
    whole = saved(sdxl_weights(), tmp_path / "whole.safetensors")
    for text in (hub, whole, _otherwise_named(hub, tmp_path / "towers")):
        components, _ = load_single_files(pruned, supir, text=text, **TOWERS_ALONE)
        assert same_weights(components)


def test_parts_alone_make_a_whole(hub: Path, supir: Path, tmp_path: Path) -> None:
    """A UNet of its own, as diffusers or as ComfyUI names it, with an autoencoder and towers from elsewhere."""
    bare = stripped(sdxl_weights(), UNET)
    files = {
        "diffusers": saved(hub_modules()["unet"].state_dict(), tmp_path / "unet.safetensors"),
        "bare": saved(bare, tmp_path / "bare.safetensors"),
        "half bare": saved({f"diffusion_model.{key}": tensor for key, tensor in bare.items()}, tmp_path / "half.sft"),
    }
    for kind, unet in files.items():
        with pytest.raises(KeyMismatchError, match=r"hold no autoencoder, text tower CLIP-L and text tower CLIP-G"):
            load_single_files(unet, supir, head_dims=HEAD_DIMS)
        found, _ = load_single_files(unet, supir, vae=hub, text=hub, **UNET_ALONE)
        assert same_weights(found), kind
    vae = saved(autoencoder_file(sdxl_weights()), tmp_path / "vae.safetensors")
    with pytest.raises(KeyMismatchError, match=r"they are an autoencoder alone: give an SDXL .* with --vae"):
        load_single_files(vae, supir)


@pytest.mark.parametrize("before", ["module.", "_forward_module.", "_orig_mod.", "state_dict.module."])
def test_what_trainers_put_into_names_is_taken_off(supir: Path, tmp_path: Path, before: str) -> None:
    base: dict[str, Tensor] = {}
    for key, tensor in sdxl_weights().items():
        inner = key.replace(UNET, UNET + "_orig_mod.") if before == "module." else key
        base[before + inner] = tensor
    components, _ = load_single_files(saved(base, tmp_path / "base.ckpt"), supir, **UNET_ALONE)
    assert same_weights(components)


def test_a_model_folder_of_ours_is_a_base_for_other_supir_weights(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "supir-q")
    other = saved({key: tensor + 1 for key, tensor in supir_weights().items()}, tmp_path / "SUPIR-v0F.safetensors")
    components, report = load_single_files(folder, other, components=("unet", "adaptor", "autoencoder"))
    before = tiny_components()
    assert not report.unexpected
    for name in ("unet", "adaptor", "autoencoder"):
        for key, tensor in components[name].state_dict().items():
            changed = name == "adaptor" or key.startswith(("connectors.", "degraded_encoder."))
            assert torch.equal(tensor, before[name].state_dict()[key] + changed), f"{name}.{key}"


def test_the_command_converts_a_folder(hub: Path, supir: Path, tmp_path: Path) -> None:
    """And the model restores with the tokenizers that lay in it."""
    arguments = ["convert", str(hub), str(supir), "-o", str(tmp_path / "model"), "--dtype", "float32"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    pipeline = SupirPipeline.from_pretrained(tmp_path / "model")
    assert same_weights(pipeline.components)
    assert len(pipeline.tokenizer) == len(tiny_components()["tokenizer"])
    record = json.loads((tmp_path / "model" / "conversion.json").read_text())
    assert [source["name"] for source in record["sources"]] == ["sdxl-base", "SUPIR-v0Q.safetensors"]
    assert record["sources"][0]["recognised"] == ["SDXL base"]
    files = {
        f"{name}/{file}": hub / name / file
        for name, file in (
            *((name, "config.json") for name in hub_modules()),
            *((name, "diffusion_pytorch_model.safetensors") for name in ("unet", "vae")),
            *((name, "model.safetensors") for name in ("text_encoder", "text_encoder_2")),
        )
    }
    assert record["sources"][0]["sha256"] == files_hash(files)
    refused = CliRunner().invoke(app, [*arguments[:3], "-o", str(tmp_path / "b"), "--prediction-type", "sample"])
    assert refused.exit_code == 2


def test_straight_into_a_pipeline(hub: Path, supir: Path) -> None:
    """The type by name or as torch's, stored in 8 bits or not; the record has the names and one hash of the files."""
    pipeline = SupirPipeline.from_single_file(hub, supir, dtype="bfloat16")
    assert pipeline.unet.dtype == pipeline.adaptor.dtype == torch.bfloat16
    assert pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert pipeline.identity["model"] == "sdxl-base + SUPIR-v0Q.safetensors"
    assert pipeline.identity["model_sha256"] == files_hash(pipeline.originals)
    eight = SupirPipeline.from_single_file(hub, supir, dtype=torch.float32, quantize="int8")
    layer, whole = eight.unet.mid_block.resnets[0].conv1, tiny_components()["unet"].mid_block.resnets[0].conv1
    assert layer.weight.dtype == torch.int8
    assert torch.allclose(layer.dequantized(torch.float32), whole.weight, atol=whole.weight.abs().max().item() / 100)
    assert "int8" in eight.identity["networks"]
    assert {name: len(getattr(eight, name)) for name in TOKENIZERS} == {
        name: len(tiny_components()[name]) for name in TOKENIZERS
    }
