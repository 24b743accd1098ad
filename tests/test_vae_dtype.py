"""The autoencoder's arithmetic can be chosen apart from the networks': it acts, is planned, told, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from supir import write
from supir.cli.main import app
from supir.errors import OptionError
from supir.image import read_record
from supir.jobs.model import Model
from supir.models.autoencoder import SupirAutoencoder
from supir.options import NetworkOptions
from supir.pipeline import SupirPipeline
from supir.planner.costs import Costs, networks_of
from supir.planner.plan import make_plan
from supir.weights import device
from supir.weights.convert import convert
from supir.weights.device import choose_vae_dtype
from supir.weights.model_folder import BUNDLED_MODEL
from test_pipeline import picture
from tiny import randomised, save_tiny_model
from weights.tiny_files import HEAD_DIMS, hub_modules, save_hub_folder, saved, supir_weights

QUICK = {"min_size": 64, "scale": 1.0, "num_steps": 2, "text_guidance": 2.0, "text_guidance_start": "off"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def for_float16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an autoencoder that says of itself that it does not overflow."""
    coder = SupirAutoencoder(
        block_out_channels=(32, 32, 32, 32), layers_per_block=1, sample_size=64, force_upcast=False
    )
    return save_tiny_model(tmp_path_factory.mktemp("tiny16") / "model", autoencoder=randomised(coder, 1))


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_it_acts_alone_and_the_record_says_so(folder: Path, for_float16: Path, kind: str) -> None:
    found = {}
    for vae_dtype in ("auto", kind):
        pipeline = SupirPipeline.from_pretrained(for_float16 if kind == "float16" else folder, vae_dtype=vae_dtype)
        pipeline.set_progress_bar_config(disable=True)
        [found[vae_dtype]] = pipeline(picture(64, 64), **QUICK)
    assert (str(pipeline.autoencoder.dtype), pipeline.unet.dtype) == (f"torch.{kind}", torch.float32)
    assert "networks" not in found["auto"].record
    assert found[kind].record["networks"] == f"autoencoder {kind}"
    difference = found[kind].picture.pixels - found["auto"].picture.pixels
    assert 0 < float(difference.square().mean()) < 0.02  # random weights, which make much of rounding
    model = Model(folder=pipeline.source, networks=NetworkOptions(vae_dtype=kind), devices=("cpu",))
    assert model.identity == pipeline.identity
    assert model.open().autoencoder.dtype is pipeline.autoencoder.dtype
    assert model.former_identity["networks"] not in ("", kind), "0.1.0 has made nothing so"


def test_unsaid_it_is_what_it_was(folder: Path) -> None:
    for dtype, beside in (("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float32")):
        pipeline = SupirPipeline.from_pretrained(folder, dtype=dtype)
        assert str(pipeline.autoencoder.dtype) == f"torch.{beside}"
        assert pipeline.identity.get("networks", "float32") == dtype


def test_the_spelling_of_diffusers_is_the_same_choice(folder: Path) -> None:
    pipeline = SupirPipeline.from_pretrained(folder, dtype={"default": "float16", "autoencoder": torch.bfloat16})
    assert pipeline.networks == NetworkOptions(dtype="float16", vae_dtype="bfloat16")
    assert pipeline.identity["networks"] == "float16, autoencoder bfloat16"
    with pytest.raises(OptionError, match="say bfloat16 and float32 of the autoencoder; say it once"):
        SupirPipeline.from_pretrained(folder, vae_dtype="float32", dtype={"autoencoder": torch.bfloat16})
    with pytest.raises(OptionError, match="vae_dtype is 'float64'; it must be one of auto, float32"):
        SupirPipeline.from_pretrained(folder, vae_dtype=torch.float64)


def test_the_device_or_the_model_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="vae_dtype is 'float16', in which this autoencoder overflows"):
        SupirPipeline.from_pretrained(folder, vae_dtype="float16")
    with pytest.raises(OptionError, match="vae_dtype is 'float16', and the model bears float32, bfloat16"):
        networks_of(BUNDLED_MODEL, NetworkOptions(vae_dtype="float16"), "cuda")
    monkeypatch.setattr(device, "has_bfloat16", lambda kind: kind != "old")
    with pytest.raises(OptionError, match="vae_dtype is 'bfloat16', which old does not multiply here"):
        choose_vae_dtype("bfloat16", torch.float16, "old")
    assert choose_vae_dtype("auto", torch.float16, "old") is torch.float32


@pytest.mark.slow
def test_the_plan_follows_it(folder: Path) -> None:
    options = SupirPipeline.from_pretrained(folder).options(**QUICK)
    plans = {}
    for kind in ("auto", "bfloat16"):
        networks = networks_of(folder, NetworkOptions(dtype="float16", vae_dtype=kind), "cuda")
        plans[kind] = make_plan(Costs(networks), options, 512, 512, accelerator=True)
    assert plans["bfloat16"].weights["autoencoder"] == plans["auto"].weights["autoencoder"] / 2
    assert plans["bfloat16"].passes["sampling"] == plans["auto"].passes["sampling"]
    for part in ("encoding", "decoding"):
        assert plans["bfloat16"].passes[part] < 0.6 * plans["auto"].passes[part]
    assert plans["bfloat16"].peak < plans["auto"].peak
    assert any("the autoencoder is bfloat16" in reason for reason in plans["bfloat16"].reasons)


@pytest.mark.slow
def test_commands_take_it(folder: Path, tmp_path: Path) -> None:
    write(picture(64, 64), tmp_path / "photo.png")
    photo, model = str(tmp_path / "photo.png"), ["--model", str(folder)]
    quick = ["--vae-dtype", "bfloat16", "--min-size", "64", "--scale", "1", "--steps", "1"]

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, *model, *quick])
        assert done.exit_code == 0, done.output
        return done.output

    assert "the autoencoder is bfloat16" in run("plan", photo, "--device", "cpu", "--rate", "10")
    run("restore", photo, "-o", str(tmp_path / "one.png"), "--device", "cpu")
    (tmp_path / "list.csv").write_text("path,output\nphoto.png,two.png\n")
    run("batch", "--manifest", str(tmp_path / "list.csv"), "-o", str(tmp_path / "out"), "--device", "cpu")
    for result in (tmp_path / "one.png", tmp_path / "out" / "two.png"):
        record = read_record(result)
        assert record is not None
        assert record["networks"] == "autoencoder bfloat16"
    for command in ("restore", "batch", "plan", "serve", "web", "benchmark table1"):
        assert "--vae-dtype" in CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"}).output
    for command in (["restore", photo], ["plan", photo], ["batch", photo, "-o", str(tmp_path / "no")]):
        refused = CliRunner().invoke(app, [*command, *model, "--vae-dtype", "float16"])
        assert refused.exit_code in (1, 2)
        assert "in which this autoencoder overflows" in refused.output.replace("\n", " ")


def test_conversion_keeps_what_an_autoencoder_bears(tmp_path: Path) -> None:
    """As sdxl-vae-fp16-fix, whose configuration says that it does not overflow; not where another replaces it."""
    hub = save_hub_folder(tmp_path / "sdxl")
    supir = saved(supir_weights(), tmp_path / "supir.safetensors")
    hub_modules()["vae"].save_pretrained(tmp_path / "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    assert config["force_upcast"] is True
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config | {"force_upcast": False}))
    convert(hub, supir, tmp_path / "with", vae=tmp_path / "vae", head_dims=HEAD_DIMS)
    convert(hub, supir, tmp_path / "without", head_dims=HEAD_DIMS)
    networks_of(tmp_path / "with", NetworkOptions(vae_dtype="float16"))
    with pytest.raises(OptionError, match="overflows"):
        networks_of(tmp_path / "without", NetworkOptions(vae_dtype="float16"))
    direct = SupirPipeline.from_single_file(hub, supir, vae=tmp_path / "vae", vae_dtype="float16")
    assert {direct.autoencoder.dtype, direct.unet.dtype} == {torch.float16, torch.float32}
    assert isinstance(direct.autoencoder, nn.Module)
    with pytest.raises(OptionError, match="overflows"):
        SupirPipeline.from_single_file(hub, supir, vae_dtype="float16")
