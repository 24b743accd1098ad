"""Workers that die: replaced, their pictures done, nothing twice; and that each opens the weights once."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.pictures import BAD, NAMES, Deadly, Finished, failures, jobs_of, options, results, run, times_done
from supir.errors import OptionError, SupirError
from supir.jobs import Job, Model, Outcome, Processes
from supir.jobs.dispatch import MAX_TRIES, work
from supir.jobs.workers import Answer, Event


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


def test_an_actor_killed_in_the_middle(finished: Finished, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from supir.jobs.ray_workers import OnRay

    runner = OnRay(1)
    try:
        killed_in_the_middle(runner, finished, folder, tmp_path)
    finally:
        runner.close()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens_is_said_at_once(scheme: str) -> None:
    pytest.importorskip("ray")
    from supir.jobs.ray_workers import OnRay

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    start = time.perf_counter()
    with pytest.raises(SupirError, match=rf"127.0.0.1:{port}: no Ray cluster there: .*refused"):
        OnRay(1, f"{scheme}127.0.0.1:{port}")
    assert time.perf_counter() - start < 5


def test_without_ray_the_exact_line_is_said() -> None:
    code = "import sys; sys.modules['ray'] = None\nimport supir.jobs.ray_workers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'supir[ray]'" in done.stderr.strip().splitlines()[-1]


class Scripted:
    """A runner whose workers answer what the script says: an event, or the job they have is done."""

    def __init__(self, num_workers: int, script: Sequence[str]) -> None:
        self.num_workers = num_workers
        self.script = deque(script)
        self.places: list[int] = []
        self.ended = 0

    def placed(self, model: Model) -> Model:
        return model

    def start(self, model: Model, place: int) -> ScriptedWorker:
        self.places.append(place)
        return ScriptedWorker(self)

    def wait(
        self, workers: Sequence[ScriptedWorker], on_fraction: Callable[[ScriptedWorker, float], None]
    ) -> list[tuple[ScriptedWorker, Answer]]:
        worker = workers[0]
        said = self.script.popleft() if self.script else "done" if worker.job else "ready"
        if said == "dies":
            return [(worker, Event.DIED)]
        if worker.job is None:
            return [(worker, Event.READY)]
        on_fraction(worker, 0.5)
        return [(worker, Outcome(source=worker.job.source, target=worker.job.target))]

    def close(self) -> None: ...


class ScriptedWorker:
    def __init__(self, runner: Scripted) -> None:
        self.job: Job | None = None
        self._runner = runner

    def give(self, job: Job) -> None:
        self.job = job

    def end(self) -> None:
        self._runner.ended += 1


def jobs(count: int) -> list[Job | Outcome]:
    return [Job(source=Path(f"{n}.png"), target=Path(f"out/{n}.png"), options=options()) for n in range(count)]


def test_a_picture_at_which_workers_die_is_given_up() -> None:
    runner = Scripted(1, ["ready", "dies"] * MAX_TRIES)
    told: list[float] = []
    first, second = work(iter(jobs(2)), Model(), runner, lambda job, fraction: told.append(fraction))
    assert f"0.png: {MAX_TRIES} workers died at it" in str(first.error)
    assert (second.source, second.error) == (Path("1.png"), None)
    assert runner.ended == len(runner.places) == MAX_TRIES + 1
    assert told == [0.5]


def test_workers_that_die_before_they_begin_end_the_run() -> None:
    runner = Scripted(2, ["dies"] * MAX_TRIES)
    with pytest.raises(SupirError, match="while they opened the weights"):
        list(work(iter(jobs(5)), Model(), runner))
    assert runner.ended == len(runner.places)
    assert set(runner.places) == {0, 1}


def test_workers_are_started_only_for_work() -> None:
    known = [Outcome(source=Path("x.png"), target=Path("out/x.png"), skipped=True)] * 3
    runner = Scripted(4, [])
    assert list(work(iter(known), Model(), runner)) == known
    assert runner.places == []
    assert len(list(work(iter([*known, *jobs(2), *known]), Model(), runner))) == 8
    assert runner.places == [0, 1]


def test_jobs_are_taken_when_there_is_a_hand_for_them() -> None:
    taken = []

    def tasks() -> Any:
        for job in jobs(10):
            taken.append(job)
            yield job

    running = work(tasks(), Model(), Scripted(2, []))
    next(running)
    assert len(taken) <= 3
    running.close()  # type: ignore[attr-defined]


def test_at_least_one_worker() -> None:
    with pytest.raises(OptionError, match="num_workers is 0"):
        Processes(0)
