"""What a worker is told, what it answers, and the one worker that is this process.

A runner starts workers, hands a task to one that is free, and tells what became of it, the worker's death included;
what follows from that is decided in `supir.pool.worker_pool`, for all runners alike.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from supir.errors import DeviceLostError, SupirError

MAX_TRIES = 3
"""Deaths of workers at one task, or one after the other before they begin, until it is given up."""

Task = TypeVar("Task")
Result = TypeVar("Result")
TaskTaken = TypeVar("TaskTaken", contravariant=True)
ResultGiven = TypeVar("ResultGiven", covariant=True)


class EmptyClusterWarning(UserWarning):
    """The cluster lacks now what every worker needs: they wait until a machine that has it joins."""


class Event(Enum):
    """What becomes of a worker, and the one thing it may be told beside a task."""

    DIED = "it has ended, with or without a task"
    STOP = "it shall leave the task that it has"


@dataclass(frozen=True)
class Done(Generic[Result]):
    """A task is done, or the worker has begun."""

    result: Result


@dataclass(frozen=True)
class Failed:
    """A task, or the worker's beginning, raised this."""

    error: Exception


@dataclass(frozen=True)
class Told:
    """What a worker reports in the middle of a task."""

    what: Any


Answer = Done[Any] | Failed | Event

Report = Callable[[Any], None]
"""Called by the work in the middle of a task; raises `Stopped` where the worker was asked to leave it."""

Work = Callable[[Task, Report], Result]


class Stopped(SupirError):
    """Raised in a worker in the middle of a task that it was asked to leave."""


class Opening(Protocol[TaskTaken, ResultGiven]):
    """How a worker begins; called once in it, and picklable."""

    @property
    def on_gpu(self) -> bool:
        """Whether a cluster is to give it a GPU, or its share of one."""

    def __call__(self, place: int) -> Work[TaskTaken, ResultGiven]:
        """What the worker does with each task; ``place`` is a number that no other worker has now, from 0."""


class Calling:
    """Workers whose tasks are calls: a function with its arguments, as `functools.partial` holds them."""

    on_gpu = False

    def __call__(self, place: int) -> Work[Callable[[], Result], Result]:
        """As `Opening.__call__`."""
        return _call


def _call(task: Callable[[], Result], report: Report) -> Result:
    return task()


class Worker(Protocol):
    """Begins when it is started, then does one task at a time."""

    def give(self, task: Any) -> None:
        """Hand over a task; the worker is ready and has none."""

    def end(self) -> None:
        """End it at once, whatever it does."""


AnyWorker = TypeVar("AnyWorker", bound=Worker)
OnReport = Callable[[AnyWorker, Any], None]
"""Told what a worker reports of its task."""


class Runner(Protocol[AnyWorker]):
    """Workers of one kind."""

    num_workers: int

    @property
    def device(self) -> str | None:
        """The kind of device that the machines of a cluster have; None: the workers have those of this machine."""

    @property
    def shared_folders(self) -> bool:
        """Whether a path means to the workers what it means here."""

    def start(self, opening: Opening[Any, Any], place: int) -> AnyWorker:
        """Start a worker; ``place`` is a number below `num_workers` that no other worker has now."""

    def wait(self, workers: Sequence[AnyWorker], on_report: OnReport[AnyWorker]) -> list[tuple[AnyWorker, Answer]]:
        """Wait until some of these workers, which all are beginning or at work, have answered, or for a moment."""

    def close(self) -> None:
        """End what the runner itself began."""


class Serial:
    """One task after the other, in this process: no second copy of anything, and no protection from a crash."""

    num_workers = 1
    device: str | None = None
    shared_folders = True

    def start(self, opening: Opening[Any, Any], place: int) -> _Here:
        """As `Runner.start`."""
        return _Here(opening, place)

    def wait(self, workers: Sequence[_Here], on_report: OnReport[_Here]) -> list[tuple[_Here, Answer]]:
        """As `Runner.wait`; what the work raises is raised."""
        [worker] = workers
        return [(worker, worker.answer(on_report))]

    def close(self) -> None:
        """Nothing to end."""


class _Here:
    def __init__(self, opening: Opening[Any, Any], place: int) -> None:
        self._opening, self._place = opening, place
        self._work: Work[Any, Any] | None = None
        self._task: Any = None

    def give(self, task: Any) -> None:
        self._task = task

    def answer(self, on_report: OnReport[_Here]) -> Answer:
        if self._work is None:
            self._work = self._opening(self._place)
            return Done(None)
        return Done(self._work(self._task, lambda what: on_report(self, what)))

    def end(self) -> None:
        self._work = self._task = None


def answer_to(call: Callable[[], Result]) -> Done[Result] | Failed:
    """What a call in a worker comes to, such as another process can be told.

    Raises:
        DeviceLostError: no task can be done in this process any more; it must end.
    """
    try:
        return Done(call())
    except DeviceLostError:
        raise
    except Exception as error:
        return Failed(_sendable(error))


def _sendable(error: Exception) -> Exception:
    """The error with a note of where it was raised, or its sentence where it does not outlive the way."""
    if not isinstance(error, SupirError):  # a mistake of ours, or what the system says
        error.add_note("in a worker: " + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return SupirError(str(error) if isinstance(error, SupirError) else f"{type(error).__name__}: {error}")
    return error
