"""The engine's lock is held for what is in memory alone, and what happens between two looks at that is no harm."""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.serving import until
from service.test_restart import submission
from supir.errors import JobNotFoundError
from supir.files.database import Database
from supir.jobs.job import Job, Outcome
from supir.jobs.model import Model
from supir.pool import Answer, Done, Event
from supir.service import data_folder as folder_module
from supir.service.data_folder import Folder
from supir.service.engine import Engine
from supir.service.limits import Client
from supir.service.stored_job import StoredJob

KEY = Client(name="a")


class Worker:
    """Answers as it is told, at once or when it is asked to leave its job."""

    def __init__(self, answers: Callable[[Job], Answer | None]) -> None:
        self._answers, self._job = answers, Job(source=Path(), target=Path(), options=None)  # type: ignore[arg-type]
        self.said: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.said.put(Done(None))

    def give(self, job: Job) -> None:
        self._job = job
        answer = self._answers(job)
        if answer is not None:
            self.said.put(answer)

    def stop(self) -> None:
        self.said.put(Done(Outcome(source=self._job.source, error="stopped on request")))

    def kill(self) -> None:
        self.said.put(Event.DIED)

    def end(self) -> None:
        pass


class Workers:
    """A runner of them."""

    device = None
    shared_folders = True

    def __init__(self, num_workers: int, answers: Callable[[Job], Answer | None]) -> None:
        self.num_workers, self._answers = num_workers, answers

    def start(self, opening: Any, place: int) -> Worker:
        return Worker(self._answers)

    def wait(self, workers: list[Worker], on_fraction: Any) -> list[tuple[Worker, Answer]]:
        [worker] = workers
        try:
            return [(worker, worker.said.get(timeout=70))]
        except queue.Empty:  # nobody has asked it to leave its job: the test has failed, and shall end
            return [(worker, Event.DIED)]

    def close(self) -> None:
        pass


def restored(job: Job) -> Answer:
    assert job.target is not None
    job.target.write_bytes(b"result")
    return Done(Outcome(source=job.source, target=job.target, sha256="1"))


@pytest.fixture
def engines(model: Path, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(num_workers: int, answers: Callable[[Job], Answer | None]) -> Engine:
        made.append(Engine(tmp_path / "data", Model(folder=model), runner=Workers(num_workers, answers)))
        made[-1].on_failure = lambda: failures.append(made[-1].failure)
        return made[-1]

    failures: list[str | None] = []
    yield make
    for engine in made:
        engine.close(0)
    assert failures == []


def handed_in(engine: Engine, upload: str = "") -> StoredJob:
    new = submission(engine.folder)
    engine.folder.upload(new.id).write_text(upload)
    return engine.submit(new, KEY)[0]


def state(engine: Engine, job: StoredJob) -> str:
    return engine.store.get(job.id, KEY.name).state


def test_nothing_slow_is_done_while_it_is_held(engines: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction, no change of a file, no wait for the disk, no process, no picture handed over."""
    seen: list[str] = []
    held: list[str] = []

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def watched(*given: Any, **more: Any) -> Any:
            seen.append(name)
            if engine.lock._is_owned():  # type: ignore[attr-defined]
                held.append(name)
            return real(*given, **more)

        monkeypatch.setattr(owner, name, watched)

    once: list[Path] = []

    def answers(job: Job) -> Answer | None:
        name = job.source.read_text()
        if name == "dies" and job.source not in once:
            once.append(job.source)
            return Event.DIED
        if name == "stays":
            return None
        return Done(Outcome(source=job.source, error="no picture")) if name == "fails" else restored(job)

    engine = engines(1, answers)
    for owner, name in ((Database, "_transaction"), (folder_module, "flush"), (Workers, "start"), (Worker, "give")):
        watch(owner, name)
    for name, _ in inspect.getmembers(Folder, inspect.isfunction):
        if name in ("done", "tidy", "abandon", "remove", "kept", "sweep", "begin"):
            watch(Folder, name)
    engine.start()
    jobs = {}
    for name in ("good", "dies", "fails", "stays", "queued"):
        jobs[name] = handed_in(engine, name)
        if name == "stays":
            until(lambda: state(engine, jobs["stays"]) == "running")
    assert {name: state(engine, job) for name, job in jobs.items()} == {
        "good": "done", "dies": "done", "fails": "failed", "stays": "running", "queued": "queued"
    }  # fmt: skip
    engine.cancel(jobs["queued"])
    engine.delete(jobs["good"])
    engine.cancel(jobs["stays"])
    until(lambda: not engine._active)
    engine.expire()
    until(lambda: {path.name for path in (engine.folder.path / "jobs").iterdir()} == {jobs["dies"].id})
    assert held == []
    assert {"_transaction", "flush", "start", "give", "done", "tidy", "remove"} <= set(seen)


def test_a_job_is_taken_by_another_before_it_is_let_go(
    engines: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker died; the database has it in the queue, and the second hand is quick."""
    begun: list[Path] = []
    go_on = threading.Event()

    def answers(job: Job) -> Answer | None:
        begun.append(job.source)
        return Event.DIED if len(begun) == 1 else None

    engine = engines(2, answers)
    put_back = engine.store.put_back

    def slowly(*given: Any, **more: Any) -> str | None:
        found = put_back(*given, **more)
        engine._call()
        until(lambda: len(begun) == 2)
        go_on.set()
        return found

    monkeypatch.setattr(engine.store, "put_back", slowly)
    engine.start()
    job = handed_in(engine)
    assert go_on.wait(60)
    until(lambda: [hand.ready for hand in engine._threads] == [True, True])
    monkeypatch.setattr(engine.store, "put_back", put_back)
    until(lambda: engine._active[job.id].worker is not None)  # the second one's work is known
    engine.cancel(job)
    until(lambda: not engine._active)
    until(lambda: not engine.folder.upload(job.id).parent.exists())


def test_a_job_is_deleted_at_the_moment_that_it_is_done(
    engines: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines(1, restored)
    finish = engine.store.finish

    def deleted(job: str, *given: Any, **more: Any) -> bool:
        found = finish(job, *given, **more)
        assert found
        engine.delete(engine.store.get(job, KEY.name))
        return found

    monkeypatch.setattr(engine.store, "finish", deleted)
    engine.start()
    job = handed_in(engine)
    until(lambda: not engine.folder.upload(job.id).parent.exists())
    with pytest.raises(JobNotFoundError):
        engine.look(job.id, KEY)
    until(lambda: not engine._active)


def test_no_call_is_missed(engines: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """A job comes when its only hand has just found none, and does not wait yet."""
    engine = engines(1, restored)
    claim, jobs = engine.store.claim, []

    def late() -> StoredJob | None:
        found = claim()
        if found is None and not jobs:
            jobs.append(handed_in(engine))
        return found

    monkeypatch.setattr(engine.store, "claim", late)
    engine.start()
    until(lambda: jobs and state(engine, jobs[0]) == "done")
