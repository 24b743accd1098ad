"""All stages on two photographs, each from the one before; the product restores a picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from smoke_runs import ROOT, needed, smoke
from test_dry_run import COUNTS
from typer.testing import CliRunner

from supir.cli.main import app
from supir.pipeline import SupirPipeline
from supir.training.recipes import STAGES
from supir.training.runs import PRODUCT, Request, averages, open_run, write_model
from supir.training.stages.lora import ADAPTER
from supir.training.states import load_averages

RESTORE = {"min_size": 64, "scale": 1.0, "num_steps": 2, "seed": 1, "tile": 256}


@pytest.fixture(scope="module")
def runs(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a run of each stage."""
    folder = tmp_path_factory.mktemp("runs")
    more = needed(folder)
    start = None
    for stage in STAGES:
        request = Request(
            options=smoke(stage, **more.get(stage, {})), data=(photographs,), out=folder / stage, start=start
        )
        start = open_run(request, curves=False).train()
    return folder


def test_every_run_leaves_what_it_promises(runs: Path) -> None:
    for stage in STAGES:
        found = {path.name for path in (runs / stage).iterdir()}
        assert {"configuration.json", "checkpoints", "sheets", "log.jsonl", "model", "best"} <= found, stage
        lines = [json.loads(line) for line in (runs / stage / "log.jsonl").read_text().splitlines()]
        assert {line["group"] for line in lines} == {"train", "held out"}
        assert lines[-1]["step"] == 4


def test_the_product_restores_a_picture(runs: Path) -> None:
    pipeline = SupirPipeline.from_pretrained(runs / "lora" / PRODUCT)
    pipeline.set_progress_bar_config(disable=True)
    [restored] = pipeline(ROOT / "examples" / "photo.jpg", **RESTORE)
    assert restored.picture.pixels.shape[0] == 3
    assert torch.isfinite(restored.picture.pixels).all()
    assert restored.picture.pixels.std() > 0.05


def test_the_product_holds_the_averages_and_the_rest_of_its_start(runs: Path) -> None:
    first, second = (SupirPipeline.from_pretrained(runs / name / PRODUCT) for name in ("encoder", "adaptor"))
    state = load_averages(runs / "adaptor")
    assert state is not None
    adaptor = dict(second.adaptor.named_parameters())
    assert all(torch.equal(adaptor[n.removeprefix("adaptor.")], t) for n, t in state.ema.items() if n[0] == "a")
    known = dict(first.unet.named_parameters())
    for name, tensor in second.unet.named_parameters():
        assert name.startswith("connectors.") or torch.equal(tensor, known[name]), name


def test_the_adapter_file_is_what_was_merged(runs: Path) -> None:
    """Loaded beside the model it was trained on, it gives what the merged model gives."""
    beside = SupirPipeline.from_pretrained(runs / "generator" / PRODUCT)
    plain = beside.adaptor.state_dict()
    beside.load_lora_weights(runs / "lora" / ADAPTER)
    merged = SupirPipeline.from_pretrained(runs / "lora" / PRODUCT)
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in merged.adaptor.state_dict().items())
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 8, 8, 8, generator=generator)
    tokens = torch.randn(1, 77, 32, generator=generator)
    vector = {"vector": torch.randn(1, 64, generator=generator)}
    with torch.no_grad():
        one, other = (p.adaptor(latent, torch.tensor([5]), tokens, vector, latent) for p in (beside, merged))
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_a_finished_run_is_left_as_it_is(runs: Path, photographs: Path) -> None:
    request = Request(options=smoke("autoencoder"), data=(photographs,), out=runs / "autoencoder")
    run = open_run(request, curves=False)
    assert run.trainer.step == 4
    write_model(request, runs / "again", averages(request.out, best=True))
    assert (runs / "again" / "model_index.json").exists()


def invoke(*words: str) -> object:
    return CliRunner().invoke(app, ["train", *words])


@pytest.mark.parametrize("best", [False, True])
def test_a_model_is_written_of_a_run_as_far_as_it_is(runs: Path, best: bool) -> None:
    found = invoke("--export", str(runs / "prior"), *(["--best"] if best else []))
    assert found.exit_code == 0, found.output
    state = load_averages(runs / "prior", best=best)
    assert state is not None
    folder = runs / "prior" / f"model_{'best' if best else 'step'}_{state.numbers['step']:08d}"
    assert str(folder) in "".join(found.output.splitlines())
    unet = dict(SupirPipeline.from_pretrained(folder).unet.named_parameters())
    assert all(torch.equal(unet[n.removeprefix("unet.")], t) for n, t in state.ema.items() if n.startswith("unet."))


@pytest.mark.slow
def test_the_command_trains_and_continues(photographs: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "supir.cli",
        "train",
        "smoke/encoder",
        "--data",
        str(photographs),
        "--threads",
    ]
    command += ["1", "--out", str(tmp_path / "run"), "--set", "steps=2", "--set", "validation_steps=2"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"wrote {tmp_path / 'run' / 'model'}" in done.stdout
    assert "ssim" in done.stderr or "ssim" in (tmp_path / "run" / "log.jsonl").read_text()
    refused = subprocess.run([*command, "--set", "batch=3"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "batch (then 2, now 3)" in " ".join(refused.stderr.replace("│", " ").split())


def test_the_command_lists_and_tells() -> None:
    listed = invoke("--list")
    assert listed.exit_code == 0
    assert "paper/adaptor" in listed.output
    assert "caption_dropout" in listed.output
    told = invoke("paper/encoder", "--dry-run")
    assert told.exit_code == 0
    assert f"{COUNTS['first_stage_model.denoise_encoder.']['params']:,}" in told.output
    assert "Nothing was run" in told.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name a run"),
        (["--export", "tests"], "holds no run"),
        (["--best"], "--best says which state --export writes"),
        (["large/adaptor"], "not a named run"),
        (["smoke/prior"], "needs --data and --out"),
        (["smoke/prior", "--set", "batch"], "write FIELD=VALUE"),
        (["smoke/prior", "--set", "batch=many"], "batch is 'many'"),
        (["smoke/prior", "--set", "speed=1"], "is not an option of a training run"),
    ],
)
def test_wrong_usage_is_said(words: list[str], says: str) -> None:
    found = invoke(*words)
    assert found.exit_code == 2
    assert says in " ".join(found.output.replace("│", " ").split())
