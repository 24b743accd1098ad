"""Workers that die: replaced, their pictures done, nothing twice; and that each opens the weights once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.pictures import BAD, NAMES, Deadly, Finished, failures, jobs_of, results, run, save, times_done
from supir.jobs import Processes


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
    assert len(workers) == len(set(workers)) == runner.num_workers + 1, "each opened the weights once, one died"


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


class Cursed(Deadly):
    """Kills every worker that is at the picture."""

    def open(self, place: int = 0) -> Any:
        (self.notes / "killed").unlink(missing_ok=True)
        return super().open(place)


def test_a_picture_at_which_workers_die_is_given_up(folder: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("1.png", "2.png")):
        save(tmp_path / "in" / name, seed)
    model = Cursed(folder=folder, devices=("cpu",), notes=tmp_path, victim="1.png")
    out = tmp_path / "out"
    outcomes = {
        outcome.source.name: outcome for outcome in run(jobs_of(tmp_path / "in", out), out, model, Processes(1))
    }
    assert "1.png: 3 workers died at it" in str(outcomes["1.png"].error)
    assert outcomes["2.png"].error is None
