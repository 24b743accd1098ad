"""Weights kept apart on disk and joined when they are loaded, and two published SUPIR files mixed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from picture_files import smooth
from supir.cli.main import app
from supir.errors import OptionError, WeightsError
from supir.jobs import Model
from supir.pipeline import SupirPipeline
from tiny import tiny_components
from weights.tiny_files import same_weights, save_hub_folder, saved, supir_weights


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base, and SUPIR as Q and as F: with other numbers."""
    folder = tmp_path_factory.mktemp("files")
    other = {key: tensor + 1 if tensor.is_floating_point() else tensor for key, tensor in supir_weights().items()}
    return {
        "base": save_hub_folder(folder / "sdxl-base"),
        "Q": saved(supir_weights(), folder / "SUPIR-v0Q.safetensors"),
        "F": saved(other, folder / "SUPIR-v0F.safetensors"),
    }


def convert(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def components(pipeline: SupirPipeline) -> dict[str, Any]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}


def test_a_folder_without_weights_joins_them_when_it_is_loaded(files: dict[str, Path], tmp_path: Path) -> None:
    convert(files["base"], files["Q"], "-o", tmp_path / "apart", "--apart")
    assert not list((tmp_path / "apart").rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in (tmp_path / "apart").rglob("*") if path.is_file()) < 200_000
    model = Model(folder=tmp_path / "apart", devices=("cpu",))
    assert same_weights(components(model.open()))
    assert model.open_previewer().unet is None
    convert(files["base"], files["F"], "-o", tmp_path / "other", "--apart")
    assert Model(folder=tmp_path / "other").identity["model_sha256"] != model.identity["model_sha256"]


def test_it_says_when_a_file_is_gone_or_another(files: dict[str, Path], tmp_path: Path) -> None:
    mine = Path(shutil.copy(files["Q"], tmp_path / "mine.safetensors"))
    convert(files["base"], mine, "-o", tmp_path / "apart", "--apart")
    shutil.copy(files["F"], mine)
    with pytest.raises(WeightsError, match=r"mine\.safetensors is not the file that it was made with"):
        SupirPipeline.from_pretrained(tmp_path / "apart")
    mine.unlink()
    with pytest.raises(WeightsError, match="where nothing is now"):
        SupirPipeline.from_pretrained(tmp_path / "apart")
    with pytest.raises(OptionError, match="holds no weights, only where they lie"):
        SupirPipeline.from_pretrained(tmp_path / "apart", quantization_config=object())


@pytest.mark.parametrize("apart", [False, True])
def test_a_mix_lies_between_the_two(apart: bool, files: dict[str, Path], tmp_path: Path) -> None:
    """SUPIR's own weights by the share; the base as it is."""
    flags = ("--apart",) if apart else ("--dtype", "float32")
    convert(files["base"], files["Q"], "--mix", f"{files['F']}:0.25", "-o", tmp_path / "mixed", *flags)
    mixed, plain = components(SupirPipeline.from_pretrained(tmp_path / "mixed")), tiny_components()

    def weight(of: dict[str, Any], component: str, name: str) -> Tensor:
        found: Tensor = of[component].state_dict()[name]
        return found

    for component, name, more in (
        ("adaptor", "conv_in.weight", 0.25),
        ("unet", "connectors.0.zero_conv.weight", 0.25),
        ("autoencoder", "degraded_encoder.conv_in.weight", 0.25),
        ("unet", "conv_in.weight", 0.0),
        ("autoencoder", "encoder.conv_in.weight", 0.0),
    ):
        assert torch.allclose(weight(mixed, component, name), weight(plain, component, name) + more, atol=1e-5), name


def test_the_share_is_in_the_name_of_what_was_mixed(files: dict[str, Path]) -> None:
    one, other = (
        SupirPipeline.from_single_file(files["base"], files["Q"], mix=(files["F"], share)) for share in (0.25, 0.5)
    )
    assert "SUPIR-v0F.safetensors x 0.25" in one.identity["model"]
    assert one.identity["model_sha256"] != other.identity["model_sha256"]


def test_what_cannot_be_mixed_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    fewer = saved(dict(list(supir_weights().items())[:-1]), tmp_path / "fewer.safetensors")
    with pytest.raises(WeightsError, match="cannot be mixed: 1 weights differ by name or shape"):
        SupirPipeline.from_single_file(files["base"], files["Q"], mix=(fewer, 0.5))
    with pytest.raises(OptionError, match=r"share of 1\.5"):
        SupirPipeline.from_single_file(files["base"], files["Q"], mix=(files["F"], 1.5))
    for text in ("SUPIR-v0F.ckpt", "SUPIR-v0F.ckpt:half"):
        result = CliRunner().invoke(app, ["convert", str(files["base"]), str(files["Q"]), "-o", "x", "--mix", text])
        assert result.exit_code == 2
        assert "write FILE:SHARE" in " ".join(result.output.split())


@pytest.mark.slow
def test_a_model_is_trained_from_weights_that_are_apart(files: dict[str, Path], tmp_path: Path) -> None:
    """One step: what comes out is a model folder with weights of its own, of which the adaptor alone has learned."""
    convert(files["base"], files["Q"], "-o", tmp_path / "apart", "--apart")
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(smooth(96, 128)).save(photographs / name)
    settings = ("steps=1", "batch=1", "crop=64", "workers=0", "warmup_steps=0", "keep_best=", "validation_steps=1")
    given = {"--from": tmp_path / "apart", "--data": photographs, "--out": tmp_path / "run"}
    words = [str(word) for pair in given.items() for word in pair]
    words += [word for each in settings for word in ("--set", each)]
    result = CliRunner().invoke(app, ["train", "smoke/adaptor", *words])
    assert result.exit_code == 0, result.output
    made = components(SupirPipeline.from_pretrained(tmp_path / "run" / "model"))
    assert list((tmp_path / "run" / "model").rglob("*.safetensors"))
    assert same_weights({name: part for name, part in made.items() if name not in ("adaptor", "unet")})
    before = tiny_components()["adaptor"].state_dict()
    assert not all(torch.equal(made["adaptor"].state_dict()[name], tensor) for name, tensor in before.items())
