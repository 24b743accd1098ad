"""The one command that makes a bundled model from nothing, killed on its way and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from smoke_runs import ROOT, needed

from supir.pipeline import SupirPipeline

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
