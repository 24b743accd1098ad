"""Albums with good and bad pictures, runs over them, and models that count how often they are opened, and die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from picture_files import png
from supir.jobs import Job, Model, Outcome, run_batch
from supir.jobs.plan import discover, plan_batch
from supir.options import RestoreOptions, restore_options

QUICK = {"num_steps": 5, "min_size": 64, "scale": 1.0, "text_guidance": 1.0}
FLAGS = ("--steps", "5", "--min-size", "64", "--scale", "1", "--text-guidance", "1", "--device", "cpu")
NAMES = ("1.png", "2.jpg", "a/1.png", "a/3.webp", "a/b/4.tif", "a/b/5.png", "a/b/6.png")
BAD = ("cut.jpg", "empty.png", "huge.png", "a/text.png")


def save(path: Path, seed: int = 0, width: int = 48, height: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def album(folder: Path, names: Sequence[str] = NAMES) -> Path:
    """Good pictures in nested folders, and one of each bad kind: cut off, empty, of a huge size, no picture at all."""
    for seed, name in enumerate(names):
        save(folder / name, seed)
    save(folder / "cut.jpg", 100)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:300])
    (folder / "empty.png").write_bytes(b"")
    (folder / "huge.png").write_bytes(png(60000, 60000, b""))
    (folder / "a").mkdir(exist_ok=True)
    (folder / "a" / "text.png").write_text("no picture")
    return folder


def options(**overrides: Any) -> RestoreOptions:
    return restore_options(**(QUICK | overrides))


def jobs_of(folder: Path, out: Path, **overrides: Any) -> list[Job]:
    wanted, failures = discover([str(folder)], out, options(**overrides))
    assert failures == []
    return plan_batch(wanted, out)


def run(jobs: Sequence[Job], out: Path, model: Model, runner: Any = None) -> list[Outcome]:
    return list(run_batch(jobs, out, model=model, runner=runner))


def results(out: Path) -> dict[str, bytes]:
    """What lies in the output folder, without log, report and lock."""
    kept = {"batch.jsonl", "report.json", ".batch.lock"}
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in kept
    }


def log_lines(out: Path) -> list[dict[str, Any]]:
    found = []
    for text in (out / "batch.jsonl").read_bytes().splitlines() if (out / "batch.jsonl").exists() else ():
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return found


def times_done(out: Path) -> Counter[str]:
    """How often each result was finished, through the log."""
    return Counter(line["target"] for line in log_lines(out) if "error" not in line)


def report(out: Path) -> dict[str, Any]:
    """What the last run came to."""
    return dict(json.loads((out / "report.json").read_text()))


def failures(out: Path) -> dict[str, str]:
    """What it says of bad pictures, by the name of the input."""
    return {Path(bad["input"]).name: bad["error"] for bad in report(out)["failures"]}


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An album, and what an uninterrupted run made of it."""

    folder: Path
    results: dict[str, bytes]


def finish(folder: Path, out: Path, weights: Path) -> Finished:
    outcomes = run(jobs_of(folder, out), out, Model(folder=weights, devices=("cpu",)))
    assert {outcome.source.name for outcome in outcomes if outcome.error} == {Path(name).name for name in BAD}
    return Finished(folder=folder, results=results(out))


def command(*arguments: object) -> subprocess.Popen[str]:
    """`supir batch` in a process of its own."""
    line = [sys.executable, "-m", "supir.cli", "batch", *map(str, arguments), *FLAGS]
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True)


@dataclass(frozen=True, kw_only=True)
class Deadly(Model):
    """Notes each opening of the weights, and kills its worker in the middle of a picture of that name, once."""

    notes: Path
    victim: str = ""

    def open(self, place: int = 0) -> Any:
        with (self.notes / "opened").open("a") as file:
            file.write(f"{os.getpid()}\n")
        return _DeadlyPipeline(super().open(place), self)

    def opened(self) -> list[str]:
        return (self.notes / "opened").read_text().split()


class _DeadlyPipeline:
    def __init__(self, pipeline: Any, model: Deadly) -> None:
        self._pipeline, self._model = pipeline, model
        self.identity = pipeline.identity

    def restore_file(self, source: Path, target: Path, options: RestoreOptions, *, on_work: Any, **more: Any) -> Any:
        def tell(reached: Any) -> None:
            if on_work is not None:
                on_work(reached)
            if source.name == self._model.victim and not (self._model.notes / "killed").exists():
                (self._model.notes / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)

        return self._pipeline.restore_file(source, target, options, on_work=tell, **more)
