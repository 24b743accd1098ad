"""Workers of every kind: each task once, those that die replaced, errors as they were raised, nobody left behind."""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from pool.work import Broken, OddError, Open, Unreadable, slow_pid, square
from supir.errors import MissingExtraError, OptionError, SupirError
from supir.pool import (
    MAX_TRIES,
    Answer,
    Calling,
    Done,
    EmptyClusterWarning,
    Event,
    Processes,
    Runner,
    Serial,
    WorkerPool,
)


def ran(runner: Runner[Any], tasks: Sequence[Any], opening: Any = None, **more: Any) -> list[Any]:
    with WorkerPool(runner, opening or Open()) as pool:
        return list(pool.run(tasks, **more))


def test_this_process() -> None:
    told: list[Any] = []
    tasks = [("square", 3), Done(5), ("wait", 2), ("square", 4)]
    assert ran(Serial(), tasks, on_report=lambda *what: told.append(what)) == [9, 5, 2, 16]
    assert told == [(("wait", 2), 0), (("wait", 2), 1)]
    with pytest.raises(OddError, match="3 and 4"):
        ran(Serial(), [("odd", None)])


def test_every_task_is_done_once_and_reports_come_in_order(tmp_path: Path) -> None:
    told: list[int] = []
    tasks = [("wait", 20), ("meet", tmp_path), *(("square", number) for number in range(10))]
    opening = Open(tmp_path)
    results = ran(Processes(2), tasks, opening, on_report=lambda task, what: told.append(what))
    assert sorted(map(str, results)) == sorted(map(str, [20, tmp_path, *(number * number for number in range(10))]))
    assert told == list(range(20))
    workers = opening.opened()
    assert len(workers) == len({pid for pid, _, _ in workers}) == 2, "each began once"
    assert {place for _, place, _ in workers} == {"0", "1"}


def test_a_worker_that_dies_is_replaced_and_its_task_done(tmp_path: Path) -> None:
    mark, opening = tmp_path / "mark", Open(tmp_path)
    tasks = [("square", 2), ("die", mark), ("killed", 0), ("square", 3)]
    assert ran(Processes(1), tasks, opening, given_up=lambda task: task) == [4, str(mark), ("killed", 0), 9]
    assert [place for _, place, _ in opening.opened()] == ["0"] * (1 + 1 + MAX_TRIES)


def test_what_is_raised_ends_the_run() -> None:
    with pytest.raises(OptionError, match=r"^7 is too many$"):
        ran(Processes(1), [("raise", OptionError("7 is too many")), ("square", 3)])
    with pytest.raises(SupirError, match="no weights there"):
        ran(Processes(1), [("square", 1)], Broken("says"))
    with pytest.raises(SupirError, match=f"{MAX_TRIES} workers died before they could begin"):
        ran(Processes(1), [("square", 1)], Broken("dies"))


@pytest.mark.parametrize("kind", ["processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_what_a_worker_is_told_and_answers(kind: str, tmp_path: Path) -> None:
    if kind == "ray":
        pytest.importorskip("ray")
    runner = _on_ray() if kind == "ray" else Processes(1)
    opening, reports = Open(tmp_path), list[int]()
    with closing(runner), WorkerPool[Any, Any](runner, opening, [0]) as pool:

        def begun() -> Any:
            pool.begin(0 if pool.idle else 1)
            while not pool.idle:
                list(pool.answers(lambda *_: None))
            return pool.idle[0]

        def answer() -> Any:
            while True:
                for _, said in pool.answers(lambda task, step: reports.append(step)):
                    return said

        def answer_to(what: str, value: Any = None) -> Any:
            begun()
            pool.give((what, value))
            return answer()

        assert answer_to("square", 3) == Done(9)
        assert answer_to("wait", 20) == Done(20)
        assert reports == list(range(20))
        error = answer_to("raise", OptionError("7 is too many")).error
        assert (type(error), str(error)) == (OptionError, "7 is too many")
        assert "pip install" in str(answer_to("missing").error), "which does not survive being sent"
        assert str(answer_to("odd").error) == "OddError: 3 and 4"
        assert "in _work" in "".join(answer_to("raise", KeyError("where")).error.__notes__), "where it was raised"
        pool.give(Unreadable())
        assert "Unreadable" in str(answer().error)
        worker = pool.give(("wait", 10_000))
        reports.clear()
        threading.Thread(target=lambda: (_until(lambda: len(reports) > 2), worker.stop())).start()
        assert str(answer().error) == "stopped on request"
        worker.stop()  # which comes when it has no task
        assert answer_to("square", 5) == Done(25)
        assert len(opening.opened()) == 1, "all this was one worker"
        assert answer_to("lose", tmp_path / "mark") is Event.DIED, "no device, no worker"
        assert pool.idle == []
        assert answer_to("lose", tmp_path / "mark") == Done(str(tmp_path / "mark"))
        threading.Timer(0.2, pool.give(("wait", 10_000)).kill).start()
        assert answer() is Event.DIED
    assert [place for _, place, _ in opening.opened()] == ["0"] * 2


def _on_ray() -> Any:
    from supir.pool.on_ray import OnRay

    return OnRay(1)


def test_calls_are_tasks_and_a_pool_works_again() -> None:
    with WorkerPool[Any, Any](Processes(2), Calling()) as pool:
        assert sorted(pool.run(functools.partial(square, number) for number in range(5))) == [0, 1, 4, 9, 16]
        seen = {pid for _ in range(2) for pid in pool.run([functools.partial(slow_pid, 0.2)] * 4)}
        assert 1 <= len(seen) <= 2, "the same workers"
    assert not any(map(_lives, seen))


def test_threads_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    opening = Open(tmp_path)
    ran(Processes(2), [("square", 1)], opening)
    ran(Processes(1, num_threads=1), [("square", 1)], opening)
    assert [threads for _, _, threads in opening.opened()] == ["3", "1"]


def test_workers_at_work_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import functools, sys\nfrom pool.work import slow_pid\nfrom supir.pool import Calling, Processes, WorkerPool\n"
        "if __name__ == '__main__':\n"
        "    with WorkerPool(Processes(2), Calling()) as pool:\n"
        "        list(pool.run([functools.partial(slow_pid, 600, sys.argv[1])] * 2))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path / "at work")])
    _until(lambda: (tmp_path / "at work").exists() and (tmp_path / "at work").read_text().count("\n") == 2)
    workers = [int(word) for word in (tmp_path / "at work").read_text().split()]
    assert all(map(_lives, workers))
    parent.kill()
    parent.wait()
    _until(lambda: not any(map(_lives, workers)))


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_at_least_one_worker() -> None:
    with pytest.raises(OptionError, match="num_workers is 0"):
        Processes(0)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens_is_said_at_once(scheme: str) -> None:
    pytest.importorskip("ray")
    from supir.pool.on_ray import OnRay

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    start = time.perf_counter()
    with pytest.raises(SupirError, match=rf"127.0.0.1:{port}: no Ray cluster there: .*refused"):
        OnRay(1, f"{scheme}127.0.0.1:{port}")
    assert time.perf_counter() - start < 20


def test_without_ray_the_exact_line_is_said() -> None:
    code = "import sys; sys.modules['ray'] = None\nimport supir.pool.on_ray"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'supir[ray]'" in done.stderr.strip().splitlines()[-1]
    assert MissingExtraError.__name__ in done.stderr


def test_workers_of_a_cluster_share_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    on_ray = pytest.importorskip("supir.pool.on_ray")
    there: dict[str, float] = {"CPU": 8.0}
    monkeypatch.setattr(on_ray.ray, "cluster_resources", lambda: there)
    device = on_ray.OnRay.device.fget
    assert device(None) == "cpu"
    there["GPU"] = 2.0
    assert device(None) == "cuda"
    assert [on_ray.share_of_a_gpu(workers) for workers in (1, 2, 3, 4, 5)] == [1, 1, 0.5, 0.5, 1 / 3]
    there["accelerator_type:Intel-GPU-Max-1550"] = 1.0
    assert device(None) == "xpu"


def test_a_cluster_without_cores_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the head of a cluster that grows when there is work; then the workers wait for machines to join."""
    on_ray = pytest.importorskip("supir.pool.on_ray")
    nodes = [{"Alive": True, "Resources": {}}]
    monkeypatch.setattr(on_ray, "_connect", lambda *_: None)
    monkeypatch.setattr(on_ray.ray, "nodes", lambda: nodes)
    with pytest.warns(EmptyClusterWarning, match="auto: the Ray cluster has no processor cores now; workers wait"):
        assert on_ray.OnRay(2, "auto")._num_threads == 1
    nodes += [{"Alive": alive, "Resources": {"CPU": 8.0}} for alive in (True, True, False)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert on_ray.OnRay(3, "auto")._num_threads == 5
        assert on_ray.OnRay(None, "auto", num_threads=1).num_workers == 16


class Scripted:
    """A runner whose workers answer what the script says: they die, or what they have is done."""

    device = None
    shared_folders = True

    def __init__(self, num_workers: int, script: Sequence[str]) -> None:
        self.num_workers = num_workers
        self.script = deque(script)
        self.places: list[int] = []
        self.ended = 0

    def start(self, opening: Any, place: int) -> ScriptedWorker:
        self.places.append(place)
        return ScriptedWorker(self)

    def wait(
        self, workers: Sequence[ScriptedWorker], on_report: Callable[[ScriptedWorker, Any], None]
    ) -> list[tuple[ScriptedWorker, Answer]]:
        worker = workers[0]
        if self.script and self.script.popleft() == "dies":
            return [(worker, Event.DIED)]
        if worker.task is not None:
            on_report(worker, 0.5)
        return [(worker, Done(worker.task))]

    def close(self) -> None: ...


class ScriptedWorker:
    def __init__(self, runner: Scripted) -> None:
        self.task: Any = None
        self._runner = runner

    def give(self, task: Any) -> None:
        self.task = task

    def end(self) -> None:
        self._runner.ended += 1


def test_tries_are_counted_for_each_task() -> None:
    runner = Scripted(1, ["begins", "dies"] * MAX_TRIES)
    told: list[Any] = []
    results = ran(runner, ["a", "b"], given_up=lambda task: f"not {task}", on_report=lambda *what: told.append(what))
    assert results == ["not a", "b"]
    assert runner.ended == len(runner.places) == MAX_TRIES + 1
    assert told == [("b", 0.5)]
    nearly = ["begins", "dies"] * (MAX_TRIES - 1) + ["begins", "done"]
    assert ran(Scripted(1, [*nearly, *nearly[1:]]), ["a"] * 2) == ["a"] * 2, "each has as many"
    with pytest.raises(SupirError, match=f"{MAX_TRIES} workers died at the same task.*fewer workers"):
        ran(Scripted(1, ["begins", "dies"] * MAX_TRIES), ["a"])


def test_workers_that_die_before_they_begin_end_the_run() -> None:
    runner = Scripted(2, ["dies"] * MAX_TRIES)
    with pytest.raises(SupirError, match="before they could begin"):
        ran(runner, list("abcde"))
    assert runner.ended == len(runner.places)
    assert set(runner.places) == {0, 1}
    nearly = ["dies"] * (MAX_TRIES - 1) + ["begins"]
    assert ran(Scripted(1, [*nearly, "dies", *nearly]), ["a"]) == ["a"], "one that begins is a new start"


def test_workers_are_started_only_for_tasks() -> None:
    runner = Scripted(4, [])
    assert ran(runner, [Done("x")] * 3) == ["x"] * 3
    assert runner.places == []
    assert len(ran(runner, [Done("x"), "a", "b", Done("x")])) == 4
    assert runner.places == [0, 1]


def test_tasks_are_taken_when_a_worker_is_free() -> None:
    taken = []

    def tasks() -> Iterator[str]:
        for task in "abcdefghij":
            taken.append(task)
            yield task

    with WorkerPool[Any, Any](Scripted(2, []), Open()) as pool:
        next(pool.run(tasks()))
        assert len(taken) <= 3
