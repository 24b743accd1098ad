"""Who does the work: this process, processes of this machine, or actors on Ray (`supir.jobs.ray_workers`).

A runner starts workers, hands a job to one that is free, and tells what became of it, the worker's death included; what
follows from that is decided in `supir.jobs.dispatch`, for all runners alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from multiprocessing import connection, get_context
from typing import TYPE_CHECKING, Protocol, TypeVar

from supir.errors import DeviceLostError, OptionError, SupirError, WeightsError
from supir.jobs.job import Job, Outcome
from supir.jobs.model import Model
from supir.pool.mapping import begin_worker

if TYPE_CHECKING:
    from supir.jobs.restoring import Restoring

__all__ = ["Answer", "Event", "Process", "Processes", "Runner", "Serial", "Worker", "all_threads"]


class Event(Enum):
    """What a worker may answer beside an outcome, and the one thing it may be told beside a job."""

    READY = "it has opened the weights"
    DIED = "it has ended, with or without a job"
    STOP = "it shall leave the job that it has"


Answer = Outcome | Event


class Worker(Protocol):
    """Opens the weights when it is started, then does one job at a time."""

    def give(self, job: Job) -> None:
        """Hand over a job; the worker is ready and has none."""

    def end(self) -> None:
        """End it at once, whatever it does."""


AnyWorker = TypeVar("AnyWorker", bound=Worker)
OnFraction = Callable[[AnyWorker, float], None]
"""Told how much of the sampling of a worker's picture is done, from 0 to 1."""


class Runner(Protocol[AnyWorker]):
    """Workers of one kind."""

    num_workers: int

    def placed(self, model: Model) -> Model:
        """The model with the devices on which the workers will run it, so that it is known what they will make.

        Raises:
            OptionError: one that is named is not there.
        """

    def start(self, model: Model, place: int) -> AnyWorker:
        """Start a worker; ``place`` is a number below `num_workers` that no other worker has now."""

    def wait(self, workers: Sequence[AnyWorker], on_fraction: OnFraction[AnyWorker]) -> list[tuple[AnyWorker, Answer]]:
        """Wait until some of these workers, which all are opening the weights or at work, have answered.

        Raises:
            WeightsError: the weights cannot be opened.
        """

    def close(self) -> None:
        """End what the runner itself began."""


class _OfThisMachine:
    """Whose workers run on devices of this machine."""

    def placed(self, model: Model) -> Model:
        """As `Runner.placed`."""
        return model.placed()


class Serial(_OfThisMachine):
    """One picture after the other, in this process: no second copy of anything, and no protection from a crash."""

    num_workers = 1

    def start(self, model: Model, place: int) -> _Here:
        """As `Runner.start`."""
        return _Here(model)

    def wait(self, workers: Sequence[_Here], on_fraction: OnFraction[_Here]) -> list[tuple[_Here, Answer]]:
        """As `Runner.wait`."""
        [worker] = workers
        return [(worker, worker.work(on_fraction))]

    def close(self) -> None:
        """Nothing to end."""


class _Here:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._restoring: Restoring | None = None
        self._job: Job | None = None

    def give(self, job: Job) -> None:
        self._job = job

    def work(self, on_fraction: OnFraction[_Here]) -> Answer:
        if self._restoring is None or self._job is None:
            from supir.jobs.restoring import Restoring

            self._restoring = Restoring(self._model)
            return Event.READY
        return self._restoring(self._job, lambda fraction: on_fraction(self, fraction))

    def end(self) -> None:
        self._restoring = None


class Processes(_OfThisMachine):
    """Processes of this machine, each with its own copy of the weights and its share of the threads.

    They end when this process ends, however it ends.

    Args:
        num_workers: how many; at least 1.
    """

    def __init__(self, num_workers: int) -> None:
        if num_workers < 1:
            raise OptionError(f"num_workers is {num_workers}; at least 1 is needed")
        self.num_workers = num_workers

    def start(self, model: Model, place: int) -> Process:
        """As `Runner.start`."""
        return Process(model, place, max(1, all_threads() // self.num_workers))

    def wait(self, workers: Sequence[Process], on_fraction: OnFraction[Process]) -> list[tuple[Process, Answer]]:
        """As `Runner.wait`."""
        by_pipe = {worker.pipe: worker for worker in workers}
        answers: list[tuple[Process, Answer]] = []
        for pipe in connection.wait(list(by_pipe)):
            worker = by_pipe[pipe]  # type: ignore[index]  # a list of pipes comes back as it went in
            try:
                said = worker.pipe.recv()
            except (EOFError, OSError):  # it is gone, perhaps in the middle of a word
                answers.append((worker, Event.DIED))
                continue
            if isinstance(said, WeightsError):
                raise said
            if isinstance(said, float):
                on_fraction(worker, said)
            else:
                answers.append((worker, said))
        return answers

    def close(self) -> None:
        """Nothing to end: the workers are ended one by one."""


class Process:
    """A worker in a process of its own."""

    def __init__(self, model: Model, place: int, num_threads: int) -> None:
        # Spawned, not forked: this process may have threads, and a forked copy of a held lock is held for ever.
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, model, place, num_threads), daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe ends with the worker

    def give(self, job: Job) -> None:
        """As `Worker.give`."""
        with suppress(OSError):  # if it died while it had nothing to do, the end of the pipe tells
            self.pipe.send(job)

    def stop(self) -> None:
        """Ask it to leave the job it has, after the step it is at; it answers with an outcome, and is ready again.

        May be called from another thread than the one that waits, but not while a job is given.
        """
        with suppress(OSError):
            self.pipe.send(Event.STOP)

    def kill(self) -> None:
        """Let it die at once: whoever waits for it hears of that."""
        self._process.kill()

    def end(self) -> None:
        """As `Worker.end`."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


class _Stopped(SupirError):
    """Raised in a worker in the middle of a job that it was asked to leave."""


def _serve(pipe: connection.Connection, model: Model, place: int, num_threads: int) -> None:
    """The life of a worker process."""
    begin_worker(num_threads)
    from supir.jobs.restoring import Restoring

    try:
        restoring = Restoring(model, place, num_threads)
    except Exception as error:
        pipe.send(WeightsError(str(error) if isinstance(error, SupirError) else f"{type(error).__name__}: {error}"))
        return
    pipe.send(Event.READY)

    def tell(fraction: float) -> None:
        pipe.send(fraction)
        if pipe.poll():  # nothing but a request to stop comes in the middle of a job
            pipe.recv()
            raise _Stopped("stopped on request")

    while True:
        said = pipe.recv()
        if isinstance(said, Job):  # otherwise a request to stop that came when the job was done
            try:
                pipe.send(restoring(said, tell))
            except DeviceLostError:
                return  # a fresh process can use the device again, and takes the picture over


def all_threads() -> int:
    """The threads that a run may use in all: what OMP_NUM_THREADS says, or the cores that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
