"""Killed at any moment and run again: each result once, nothing else changed, the same bytes."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from jobs.mixed import mixed
from jobs.pictures import (
    BAD,
    NAMES,
    Finished,
    album,
    command,
    failures,
    jobs_of,
    options,
    report,
    results,
    run,
    save,
    times_done,
)
from supir.errors import OptionError, SupirError, WeightsError
from supir.files import alone
from supir.jobs import Job, Model, Processes


@pytest.fixture
def model(folder: Path) -> Model:
    return Model(folder=folder, devices=("cpu",))


def kill_when(out: Path, num_done: int, delay: float, *arguments: object) -> None:
    """Start the command, and kill it some time after so many results are done."""
    process = command(*arguments)
    while process.poll() is None and len(times_done(out)) < num_done:
        time.sleep(0.005)
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"


def test_killed_again_and_again(finished: Finished, folder: Path, tmp_path: Path, model: Model) -> None:
    out, chance = tmp_path / "out", random.Random(1)
    for num_lines in (1, 3):
        kill_when(out, num_lines, chance.random() / 20, finished.folder, "-o", out, "--model", folder)
        whole = {name: data for name, data in results(out).items() if not name.endswith(".tmp")}
        assert whole.items() <= finished.results.items(), "a file is whole or not there"
    before = times_done(out)
    assert before
    outcomes = run(jobs_of(finished.folder, out), out, model)
    assert results(out) == finished.results
    assert times_done(out) == dict.fromkeys(NAMES, 1)
    assert sum(outcome.skipped for outcome in outcomes) == len(before)
    assert set(failures(out)) == {Path(name).name for name in BAD}


def test_what_is_done_is_left_alone_and_what_failed_is_tried_again(
    finished: Finished, model: Model, tmp_path: Path
) -> None:
    source, out = album(tmp_path / "in", ["1.png", "a/2.png"]), tmp_path / "out"
    run(jobs_of(source, out), out, model)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert failures(out).keys() == {Path(name).name for name in BAD}
    save(source / "empty.png")
    outcomes = {outcome.source.name: outcome for outcome in run(jobs_of(source, out), out, model)}
    assert outcomes["1.png"].skipped
    assert outcomes["2.png"].skipped
    assert outcomes["empty.png"].error is None
    assert times.items() <= {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}.items()
    assert times_done(out) == dict.fromkeys(("1.png", "a/2.png", "empty.png"), 1)


@pytest.mark.slow
def test_what_changed_alone_is_made_again(model: Model, tmp_path: Path) -> None:
    for seed, name in enumerate(("1.png", "2.png", "3.png", "4.png")):
        save(tmp_path / "in" / name, seed)
    out = tmp_path / "out"

    def remade(**overrides: object) -> set[str]:
        jobs = jobs_of(tmp_path / "in", out)
        jobs[3] = Job(source=jobs[3].source, target=jobs[3].target, options=options(**overrides))
        return {outcome.source.name for outcome in run(jobs, out, model) if not outcome.skipped}

    assert remade() == {"1.png", "2.png", "3.png", "4.png"}
    assert remade() == set()
    first = results(out)
    save(tmp_path / "in" / "1.png", 50)  # another input
    (out / "2.png").write_bytes(first["2.png"][:-1])  # a damaged result
    (out / "3.png").unlink()
    assert remade(seed=5) == {"1.png", "2.png", "3.png", "4.png"}
    now = results(out)
    assert {name for name in now if now[name] != first[name]} == {"1.png", "4.png"}
    assert remade(seed=5) == set()


def test_other_weights_make_everything_again(model: Model, folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "in" / "1.png")
    run(jobs_of(tmp_path / "in", tmp_path / "out"), tmp_path / "out", model)
    other = shutil.copytree(folder, tmp_path / folder.name)
    index = other / "model_index.json"
    index.write_text(index.read_text() + "\n")
    [outcome] = run(jobs_of(tmp_path / "in", tmp_path / "out"), tmp_path / "out", Model(folder=other, devices=("cpu",)))
    assert not outcome.skipped


def test_a_torn_line_and_what_a_killed_run_leaves(model: Model, tmp_path: Path) -> None:
    source, out = album(tmp_path / "in", ["1.png", "2.png"]), tmp_path / "out"
    run(jobs_of(source, out), out, model)
    before = results(out)
    log = out / "batch.jsonl"
    lines = [line for line in log.read_bytes().splitlines(keepends=True) if b"error" not in line]
    log.write_bytes(b"\xff\n" + lines[0] + lines[1][:70])
    (out / ".2.png.0123456789ab.tmp").write_bytes(b"half")
    (out / ".two\nlines.png.0123456789ab.tmp").write_bytes(b"half")
    (out / ".part.0123456789ab.tmp").write_bytes(b"pixels of a large picture")
    (out / ".mine.tmp").write_bytes(b"of somebody else")
    outcomes = run(jobs_of(source, out), out, model)
    assert {outcome.source.name for outcome in outcomes if outcome.skipped} == {"1.png"}
    assert times_done(out) == {"1.png": 1, "2.png": 1}
    assert results(out) == before | {".mine.tmp": b"of somebody else"}


def test_a_result_that_cannot_be_noted_is_said_and_made_again(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "in" / "1.png")
    out = tmp_path / "out"

    def full(path: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr("supir.jobs.batch.add_entries", full)
        [outcome] = run(jobs_of(tmp_path / "in", out), out, model)
    assert "1.png: is made, but will be made again" in str(outcome.error)
    assert "batch.jsonl: cannot be written: the disk is full" in str(outcome.error)
    [outcome] = run(jobs_of(tmp_path / "in", out), out, model)
    assert (outcome.error, outcome.skipped) == (None, False)
    assert times_done(out) == {"1.png": 1}


class Meddling(Model):
    """While a picture is restored, its file is written anew."""

    def open(self, place: int = 0) -> Any:
        return _MeddlingPipeline(super().open(place))


class _MeddlingPipeline:
    def __init__(self, pipeline: Any) -> None:
        self._pipeline, self.identity = pipeline, pipeline.identity

    def restore_file(self, source: Path, *arguments: Any, **named: Any) -> Any:
        save(source, 9)
        return self._pipeline.restore_file(source, *arguments, **named)


def test_a_source_that_changes_meanwhile_is_not_done(model: Model, tmp_path: Path) -> None:
    save(tmp_path / "in" / "1.png")
    out = tmp_path / "out"
    [outcome] = run(jobs_of(tmp_path / "in", out), out, Meddling(folder=model.folder, devices=("cpu",)))
    assert "changed while it was restored" in str(outcome.error)
    assert times_done(out) == {}
    [outcome] = run(jobs_of(tmp_path / "in", out), out, model)
    assert (outcome.error, outcome.skipped) == (None, False)


def test_the_folder_of_somebody_else_and_of_another_batch(model: Model, tmp_path: Path) -> None:
    save(tmp_path / "in" / "1.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / "1.png").write_text("precious")
    with pytest.raises(OptionError, match="holds something that no batch made"):
        run(jobs_of(tmp_path / "in", out), out, model)
    assert (out / "1.png").read_text() == "precious"
    (out / "1.png").unlink()
    (out / ".directory").touch()
    assert run(jobs_of(tmp_path / "in", out), out, model)[0].error is None
    with alone(out / ".batch.lock", "batch"), pytest.raises(SupirError, match="another batch is at work"):
        run(jobs_of(tmp_path / "in", out), out, model)


def test_a_model_that_cannot_be_opened_ends_the_run(tmp_path: Path) -> None:
    save(tmp_path / "in" / "1.png")
    with pytest.raises(WeightsError, match="is not a model folder"):
        run(jobs_of(tmp_path / "in", tmp_path / "out"), tmp_path / "out", Model(folder=tmp_path, devices=("cpu",)))


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_weights_that_are_damaged_end_the_run(folder: Path, tmp_path: Path, workers: int) -> None:
    save(tmp_path / "in" / "1.png")
    shutil.copytree(folder, tmp_path / "cut")
    [weights] = (tmp_path / "cut" / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    model, runner = Model(folder=tmp_path / "cut", devices=("cpu",)), Processes(workers) if workers else None
    with pytest.raises(WeightsError, match=rf"^{tmp_path / 'cut'}: a file of it cannot be read.*unet"):
        run(jobs_of(tmp_path / "in", tmp_path / "out"), tmp_path / "out", model, runner)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_two_hundred_mixed_pictures_and_five_kills(folder: Path, model: Model, tmp_path: Path, workers: int) -> None:
    asked, whole, out = mixed(tmp_path / "in"), tmp_path / "whole", tmp_path / "out"
    num_good, num_bad = len(asked.good), len(asked.bad)
    assert num_good + num_bad == 200
    start = time.perf_counter()
    with warnings.catch_warnings(action="ignore"):
        run(jobs_of(asked.folder, whole), whole, model)
    uninterrupted = time.perf_counter() - start
    assert set(results(whole)) == set(asked.good)
    chance, reached = random.Random(workers), []
    for number in range(5):
        at = (num_good // 6) * number + chance.randrange(1, num_good // 6)
        kill_when(out, at, chance.random() / 2, asked.folder, "-o", out, "--model", folder, "--workers", workers)
        reached.append(len(times_done(out)))
    start = time.perf_counter()
    process = command(asked.folder, "-o", out, "--model", folder, "--workers", workers)
    _, said = process.communicate()
    assert process.returncode == 1, said
    assert f"{num_good - reached[-1]} restored, {reached[-1]} skipped, {num_bad} failed" in said
    assert results(out) == results(whole)
    assert times_done(out) == dict.fromkeys(asked.good, 1)
    told = {Path(bad["input"]).relative_to(asked.folder).as_posix(): bad["error"] for bad in report(out)["failures"]}
    assert told.keys() == asked.bad.keys()
    for name, why in asked.bad.items():
        assert why in told[name].replace(name, "")
    assert "warning: left out, as supir does not read them: 1 .gif" in said
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == num_bad, "a line each"
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert not asked.sprung.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"in", "whole", "out"}, "no name leads elsewhere"
    print(f"workers {workers}: {num_good} good, {num_bad} bad; uninterrupted {uninterrupted:.1f} s, done at the kills"
          f" {reached}, last run {time.perf_counter() - start:.1f} s")  # fmt: skip
