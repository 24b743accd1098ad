"""From an SDXL file and a folder of photographs to every trained part, by the documented commands, on two processes.

The file is laid out as SDXL's, in small widths; each run ends in a model folder that restores a picture.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from launched import killed, ran, started
from smoke_runs import needed

from supir.pipeline import SupirPipeline
from supir.training.states import load_latest

pytestmark = pytest.mark.slow
STEPS = 4
"""Of each run; the one that is killed has its first state after two."""
SETTINGS = (
    f"steps={STEPS}",
    "batch=1",
    "crop=64",
    "workers=0",
    "warmup_steps=1",
    "checkpoint_steps=2",
    "validation_steps=4",
)
TWO = ("-m", "accelerate.commands.launch", "--num_processes", "2", "--use_fsdp", "-m", "supir.cli", "train")
ONE = ("-m", "supir.cli", "train")


def settings(*more: str) -> Iterator[str]:
    for setting in (*SETTINGS, *more):
        yield from ("--set", setting)


def restores(model: Path, photographs: Path, out: Path) -> None:
    ran("-m", "supir.cli", "restore", photographs / "shapes.png", "--model", model, "-o", out, "--steps", 2,
        "--min-size", 64, "--scale", 1, "--overwrite")  # fmt: skip
    assert out.is_file()


def test_from_an_sdxl_file_to_every_part(sdxl: Path, photographs: Path, tmp_path: Path) -> None:
    def trained(stage: str, start: Path, *more: str) -> Path:
        out = tmp_path / stage
        said = ran(*TWO, f"paper/{stage}", "--data", photographs, "--from", start, "--out", out, *settings(), *more)
        assert said.count(f"wrote {out / 'model'}") == 1
        restores(out / "model", photographs, tmp_path / f"{stage}.png")
        return out / "model"

    encoder = trained("encoder", sdxl)
    negatives = tmp_path / "negatives"
    made = ("pictures=2", "size=64", "num_steps=2")
    ran(*TWO, "negatives", "--data", photographs, "--from", encoder, "--out", negatives,
        *(word for setting in made for word in ("--set", setting)))  # fmt: skip
    labels = [json.loads(line) for line in (negatives / "labels.jsonl").read_text().splitlines()]
    assert [label["file"] for label in labels] == ["000000.png", "000001.png"]
    adaptor = trained("adaptor", encoder, "--negatives", str(negatives), "--set", "negative_share=0.5")
    assert tuple(SupirPipeline.from_pretrained(adaptor).adaptor.config.transformer_layers_per_block) == (1, 1, 5)
    trained("lora", adaptor, "--set", "accumulation=2")
    perceptual = needed(tmp_path)["generator"]["perceptual"]
    few = trained("generator", adaptor, "--set", f"perceptual={perceptual}", "--set", "accumulation=2")
    assert SupirPipeline.from_pretrained(few).config.presets["all"]["num_steps"] == 1


def test_killed_in_the_middle_and_gone_on_with(sdxl: Path, photographs: Path, tmp_path: Path) -> None:
    """On two processes again to the same bits; on one, with twice the batch, to rounding."""

    def command(out: Path, batch: int = 1) -> tuple[object, ...]:
        run = "paper/encoder", "--data", photographs, "--from", sdxl, "--out", out
        exact = "mixed_precision=no", "frozen_dtype=float32", "learning_rate=1e-4"
        return *run, *settings(f"batch={batch}", *exact)

    ran(*TWO, *command(tmp_path / "whole"))
    for out in (tmp_path / "two", tmp_path / "one"):
        process = started(*TWO, *command(out))
        until = time.monotonic() + 900
        while not list(out.glob("checkpoints/step_*")) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        killed(process)
        state = load_latest(out)
        assert state is not None
        assert state.numbers["step"] < STEPS, "it ended before it was killed"
    ran(*TWO, *command(tmp_path / "two"))
    ran(*ONE, *command(tmp_path / "one", batch=2))
    whole, two, one = (load_latest(tmp_path / name) for name in ("whole", "two", "one"))
    assert whole is not None and two is not None and one is not None  # noqa: PT018
    assert all(torch.equal(whole.ema[name], tensor) for name, tensor in two.ema.items())
    for name, tensor in one.ema.items():
        torch.testing.assert_close(tensor, whole.ema[name], atol=2e-4, rtol=0)
