"""The one command that makes a bundled model from nothing, killed on its way and gone on with."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from smoke_runs import ROOT, needed

from supir.models.unet import SupirUNet
from supir.pipeline import SupirPipeline
from supir.training.sizes import build_size

COMMAND = [sys.executable, str(ROOT / "tools" / "bundled_model" / "make.py")]
SHORT = {"steps": 3, "batch": 2, "crop": 64, "warmup_steps": 1, "checkpoint_steps": 1, "validation_steps": 3}
FEW = {"restorer_blocks": 1, "degradation": "light=1"}


@pytest.mark.slow
def test_from_pictures_to_a_model_through_a_kill(photographs: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    needed(work)  # weights of the networks that steer, at random
    command = [*COMMAND, "--work", str(work), "--data", str(photographs)]
    for name, value in (SHORT | FEW).items():
        command += ["--set", f"{name}={value}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    begun = subprocess.Popen(command, env=environment, start_new_session=True)
    while not (work / "runs" / "prior" / "checkpoints").exists():
        assert begun.poll() is None
        time.sleep(0.1)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    made = (work / "runs" / "autoencoder" / "model" / "model_index.json").stat().st_mtime_ns
    subprocess.run(command, env=environment, check=True)
    assert (work / "runs" / "autoencoder" / "model" / "model_index.json").stat().st_mtime_ns == made
    pipeline = SupirPipeline.from_pretrained(work / "model")
    pipeline.set_progress_bar_config(disable=True)
    [restored] = pipeline(ROOT / "examples" / "photo.jpg", scale=1)
    assert torch.isfinite(restored.picture.pixels).all()
    assert pipeline.autoencoder.config.dense_blocks == 1
    assert pipeline.autoencoder.has_detail


def test_a_cut_decoder_keeps_the_layers_nearest_to_the_picture_with_their_connectors() -> None:
    spec = importlib.util.spec_from_file_location("begin_smaller", COMMAND[1].replace("make.py", "begin_smaller.py"))
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    own = {name: value for name, value in build_size("smoke")["unet"].config.items() if not name.startswith("_")}
    large, small = (SupirUNet(**{**own, "layers_per_block": layers}) for layers in (2, 1))
    tool.begin(large, small)
    for mine, theirs in (
        ("connectors.0", "connectors.0"),  # joins the last layer of all
        ("connectors.2", "connectors.3"),  # crosses before the last enlargement
        ("up_blocks.0.resnets.1", "up_blocks.0.resnets.2"),
        ("up_blocks.0.upsamplers.0", "up_blocks.0.upsamplers.0"),
        ("connectors.8", "connectors.11"),  # after the middle
        ("down_blocks.1.resnets.0", "down_blocks.1.resnets.0"),
    ):
        parts = zip(small.get_submodule(mine).parameters(), large.get_submodule(theirs).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in parts), mine
