"""How networks are loaded and run: the settings, what they do to a pipeline, to records, to batches and to plans."""

from __future__ import annotations

import json
import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from supir import write
from supir.cli.main import app
from supir.errors import KeyMismatchError, OptionError, WeightsError
from supir.jobs.job import settings_sha256
from supir.jobs.model import Model
from supir.models.adaptor import SupirAdaptor
from supir.models.quantized import quantized_kind
from supir.models.unet import SupirUNet
from supir.options import NetworkOptions
from supir.pipeline import SupirPipeline
from supir.planner.costs import Costs, networks_of, on_meta
from supir.planner.plan import advice, make_plan
from supir.weights.runtime import arrange, check_compiler, load_stored
from test_pipeline import picture
from tiny import save_tiny_model

QUICK = {"min_size": 64, "scale": 1.0, "num_steps": 2, "text_guidance": 2.0, "text_guidance_start": "off"}
QUICK |= {"restoration_guidance": "off"}
"""Without the pull, which of two steps replaces the first wholly: what is left is the autoencoder four times over, and
one of random weights makes ever more of the same rounding, even in float32."""
BOUNDS = {("float32", "int8"): 47, ("bfloat16", "none"): 44, ("bfloat16", "int8"): 42, ("bfloat16", "float8"): 35}
"""PSNR in dB of a tiny model's result to the plain one."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def restored(folder: Path, **networks: object) -> tuple[torch.Tensor, dict[str, str], SupirPipeline]:
    pipeline = SupirPipeline.from_pretrained(folder, **networks)  # type: ignore[arg-type]
    pipeline.set_progress_bar_config(disable=True)
    [found] = pipeline(picture(64, 64), **QUICK)
    return found.picture.pixels, found.record, pipeline


@pytest.fixture(scope="module")
def plain(folder: Path) -> torch.Tensor:
    return restored(folder)[0]


@pytest.mark.parametrize(("dtype", "quantize"), BOUNDS)
def test_results_stay_within_their_bounds_and_say_how_they_were_made(
    folder: Path, plain: torch.Tensor, dtype: str, quantize: str
) -> None:
    pixels, record, pipeline = restored(folder, dtype=dtype, quantize=quantize)
    assert float(10 * torch.log10(4 / (pixels - plain).square().mean())) > BOUNDS[dtype, quantize]
    assert not torch.equal(pixels, plain)
    said = [dtype] * (dtype != "float32") + [quantize] * (quantize != "none")
    assert record["networks"] == ", ".join(said)
    assert (
        quantized_kind(pipeline.unet) == quantized_kind(pipeline.adaptor) == (None if quantize == "none" else quantize)
    )
    assert str(pipeline.unet.dtype) == str(pipeline.autoencoder.dtype) == f"torch.{dtype}"
    planned = on_meta({name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)})
    foreseen = networks_of(folder, NetworkOptions(dtype=dtype, quantize=quantize))
    assert planned.weights == foreseen.weights


def test_by_default_nothing_is_said_and_all_is_float32(folder: Path) -> None:
    _, record, pipeline = restored(folder)
    assert "networks" not in record
    assert {pipeline.unet.dtype, pipeline.autoencoder.dtype} == {torch.float32}
    half = SupirPipeline.from_pretrained(folder, dtype=torch.float16)
    assert half.autoencoder.dtype is torch.float32
    assert half.identity["networks"] == "float16"


def test_convolutions_are_laid_out_anew_on_processors_alone(folder: Path) -> None:
    for kind, changed in (("cuda", False), ("mps", False), ("xpu", False), ("cpu", True)):
        components = SupirPipeline.from_pretrained(folder).components
        for name in ("unet", "adaptor", "autoencoder"):
            torch.nn.Module.to(components[name], torch.bfloat16)
        arrange(components, NetworkOptions(), kind)
        weight = components["unet"].mid_block.resnets[0].conv1.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) is changed, kind


def test_what_changes_results_is_part_of_a_batch(folder: Path) -> None:
    """Its settings, so that nothing made otherwise is taken for done; and it reaches the workers."""
    models = [
        Model(folder=folder, networks=NetworkOptions(**given))  # type: ignore[arg-type]
        for given in ({}, {"dtype": "bfloat16"}, {"quantize": "int8"}, {"quantize": "float8"}, {"compile": True})
    ]
    settings = {settings_sha256(model.options(), model.identity) for model in models}
    assert len(settings) == len(models)
    assert models[0].identity == Model(folder=folder).identity
    opened = pickle.loads(pickle.dumps(models[2])).open()
    assert quantized_kind(opened.unet) == "int8"
    assert opened.identity == models[2].identity


def test_a_preview_needs_no_network_of_8_bits(folder: Path) -> None:
    previewer = Model(folder=folder, networks=NetworkOptions(quantize="int8")).open_previewer()
    assert previewer.unet is None
    assert previewer.preview(picture(64, 64), **QUICK).pixels.shape[-2:] == (64, 64)


def test_weights_of_8_bits_are_not_saved(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="int8 cannot be saved"):
        SupirPipeline.from_pretrained(folder, quantize="int8").save_pretrained(tmp_path)


def test_wrong_values_are_refused_by_name(folder: Path) -> None:
    with pytest.raises(OptionError, match=r"quantize is 'int4'.*none, int8, float8"):
        SupirPipeline.from_pretrained(folder, quantize="int4")
    with pytest.raises(OptionError, match="dtype is 'float64'"):
        SupirPipeline.from_pretrained(folder, dtype=torch.float64)


def test_missing_files_and_weights_are_named(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    index = json.loads((model / "model_index.json").read_text())
    config = json.loads((model / "adaptor" / "config.json").read_text())
    (model / "adaptor" / "config.json").write_text(json.dumps(config | {"layers_per_block": 3}))
    with pytest.raises(KeyMismatchError, match="another configuration or version"):
        load_stored(model, index, NetworkOptions(quantize="int8"), torch.float32)
    (model / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has no diffusion_pytorch_model\.safetensors"):
        load_stored(model, index, NetworkOptions(quantize="int8"), torch.float32)


def test_compiling_without_a_compiler_is_refused_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(OptionError, match="needs a C\\+\\+ compiler, and no-such-compiler is not installed"):
        SupirPipeline.from_pretrained(folder, compile=True)
    monkeypatch.setenv("CXX", "sh")
    check_compiler()


def test_compiling_is_asked_of_both_networks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("supir.weights.opening.check_compiler", lambda kind: None)
    for kind in (SupirUNet, SupirAdaptor):
        monkeypatch.setattr(kind, "compile_repeated_blocks", lambda self: asked.append(type(self).__name__))
    assert SupirPipeline.from_pretrained(folder, compile=True).identity["networks"] == "compiled"
    assert asked == ["SupirUNet", "SupirAdaptor"]


@pytest.mark.slow
def test_a_compiled_pipeline_makes_the_same_picture(folder: Path, plain: torch.Tensor) -> None:
    pixels, record, _ = restored(folder, compile=True)
    assert float((pixels - plain).abs().max()) < 1e-3
    assert record["networks"] == "compiled"


@pytest.mark.slow
def test_the_plan_counts_fewer_bytes_and_advises(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, eight = (networks_of(folder, NetworkOptions(quantize=kind)) for kind in ("none", "int8"))
    assert eight.weights["unet"] < 0.35 * whole.weights["unet"]
    assert eight.weights["text_encoder"] == whole.weights["text_encoder"]
    options = SupirPipeline.from_pretrained(folder).options(**QUICK, tile=64, vae_tile=64)
    tight, exact = (make_plan(Costs(networks), options, 64, 64) for networks in (eight, whole))
    assert tight.peak < exact.peak
    assert any("stored as int8" in reason for reason in tight.reasons)
    between = (tight.peak + exact.peak) / 2

    def advised(able: bool, given: NetworkOptions, accelerator: bool = False) -> str:
        monkeypatch.setattr(import_module("supir.planner.plan"), "multiplies_bfloat16", lambda: able)
        there: dict[str, Any] = {"memory": between, "accelerator": accelerator}
        return advice(folder, given, torch.float32, options, 64, 64, **there)

    assert advised(False, NetworkOptions()).startswith("--dtype float32 --quantize int8 fits")
    assert advised(True, NetworkOptions()).startswith(
        ("--dtype bfloat16 fits", "--dtype bfloat16 --quantize int8 fits")
    )
    on_a_gpu = NetworkOptions(dtype="float32", offload="none")
    assert advised(True, on_a_gpu, accelerator=True).startswith("--dtype float16 fits")


@pytest.mark.slow
def test_the_commands_take_the_settings(folder: Path, tmp_path: Path) -> None:
    write(picture(64, 64), tmp_path / "photo.png")
    photo, common = str(tmp_path / "photo.png"), ["--model", str(folder), "--quantize", "int8", "--dtype", "float32"]
    common += ["--device", "cpu"]
    plan = CliRunner().invoke(app, ["plan", photo, *common, "--rate", "10", "--min-size", "64", "--memory", "0.1GB"])
    assert plan.exit_code == 0, plan.output
    assert "stored as int8" in plan.stdout
    assert "advice: not even --dtype bfloat16 --quantize int8 fits" in plan.stdout
    wrong = CliRunner().invoke(app, ["restore", photo, "--dtype", "float64"])
    assert wrong.exit_code == 2
    assert "dtype is 'float64'" in wrong.output.replace("\n", " ")
    out = tmp_path / "out.png"
    quick = ["--min-size", "64", "--scale", "1", "--steps", "1"]
    done = CliRunner().invoke(app, ["restore", photo, "-o", str(out), *common, *quick])
    assert done.exit_code == 0, done.output
    assert out.exists()
