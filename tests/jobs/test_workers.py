"""Workers that die: replaced, their pictures done, nothing twice; and that each opens the weights once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.pictures import BAD, NAMES, Deadly, Finished, failures, jobs_of, results, run, save, times_done
from pool.test_worker_pool import Scripted
from supir.jobs import Model, Processes
from supir.pool import MAX_TRIES


def killed_in_the_middle(runner: Any, finished: Finished, folder: Path, tmp_path: Path) -> None:
    """A run, one worker of which is killed in the middle of a picture."""
    out = tmp_path / "out"
    model = Deadly(folder=folder, devices=("cpu",), notes=tmp_path, victim="2.jpg")
    outcomes = run(jobs_of(finished.folder, out), out, model, runner)
    assert (tmp_path / "killed").exists()
    assert results(out) == finished.results
    assert times_done(out) == dict.fromkeys(NAMES, 1)
    assert len(outcomes) == len(NAMES) + len(BAD)
    assert set(failures(out)) == {Path(name).name for name in BAD}
    workers = model.opened()
    assert len(workers) == len(set(workers)), "each opened the weights once"
    assert len(workers) == 1 + 1 or runner.num_workers > 1, "the one that died is replaced, where there is no other"


@pytest.mark.slow
def test_a_process_killed_in_the_middle(finished: Finished, folder: Path, tmp_path: Path) -> None:
    killed_in_the_middle(Processes(2), finished, folder, tmp_path)


@pytest.mark.slow
def test_an_actor_killed_in_the_middle(finished: Finished, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from supir.pool.on_ray import OnRay

    runner = OnRay(1)
    try:
        killed_in_the_middle(runner, finished, folder, tmp_path)
    finally:
        runner.close()


def test_a_picture_at_which_workers_die_is_given_up(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "in" / "1.png")
    out, runner = tmp_path / "out", Scripted(1, ["begins", "dies"] * MAX_TRIES)
    [outcome] = run(jobs_of(tmp_path / "in", out), out, Model(folder=folder, devices=("cpu",)), runner)
    assert f"1.png: {MAX_TRIES} workers died at it" in str(outcome.error)
    assert failures(out) == {"1.png": outcome.error}
