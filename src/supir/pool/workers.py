"""What a worker is told and answers, the one worker that is this process, and tasks handed to workers of any kind.

A runner starts workers, and tells what became of their tasks, the worker's death included; what follows from that is
decided by `WorkerPool`, for all runners alike.
"""

from __future__ import annotations

import pickle
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Protocol, Self, TypeVar

from supir.errors import DeviceLostError, OptionError, SupirError

MAX_TRIES = 3
"""Deaths of workers at one task, or one after the other before they begin, until it is given up."""

_MOST_OFTEN = "most often for lack of memory; start again with fewer workers: it goes on where it was"

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


def check_count(num_workers: int) -> int:
    """So many workers.

    Raises:
        OptionError: they are fewer than 1.
    """
    if num_workers < 1:
        raise OptionError(f"num_workers is {num_workers}; at least 1 is needed")
    return num_workers


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


def _raise_death(task: Any) -> Any:
    raise SupirError(f"{MAX_TRIES} workers died at the same task, {_MOST_OFTEN}")


class WorkerPool(Generic[Task, Result]):
    """The workers there are, and what each does. A context manager, at the end of which all end at once.

    Args:
        runner: starts them; it is not closed here.
        opening: how each begins.
        places: the numbers that they have; None: those below the number of the runner's workers.
    """

    def __init__(
        self, runner: Runner[Any], opening: Opening[Task, Result], places: Sequence[int] | None = None
    ) -> None:
        self.idle: list[Any] = []
        """Ready, and without a task."""
        self.working: dict[Any, Task] = {}
        self.beginning: list[Any] = []
        self._runner, self._opening = runner, opening
        self._places = list(range(runner.num_workers) if places is None else places)
        self._taken: dict[Any, int] = {}
        self._num_stillborn = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._taken:
            worker.end()
        for workers in (self.idle, self.working, self.beginning, self._taken):
            workers.clear()

    def run(
        self,
        tasks: Iterable[Task | Done[Result]],
        *,
        given_up: Callable[[Task], Result] = _raise_death,
        on_report: Callable[[Task, Any], None] = lambda task, what: None,
    ) -> Iterator[Result]:
        """The result of every task, in the order in which they are finished.

        Workers are started when there is a task for them. One that dies is replaced, and its task is tried again.

        Args:
            tasks: taken when a worker is free for them; of what is done already the result is passed on.
            given_up: gives the result of a task at which `MAX_TRIES` workers died; unset: that is raised.
            on_report: told what the work reports of a task.

        Raises:
            SupirError: worker after worker dies before it begins.
            Exception: the first that the work, or a worker's beginning, raises.
        """
        remaining, more = iter(tasks), True
        waiting: deque[Task] = deque()
        deaths: Counter[int] = Counter()
        while True:
            while more and len(waiting) < len(self._places) - len(self.working):
                try:
                    task = next(remaining)
                except StopIteration:
                    more = False
                    break
                if isinstance(task, Done):
                    yield task.result
                else:
                    waiting.append(task)
            while waiting and self.idle:
                self.give(waiting.popleft())
            self.begin(len(waiting))
            if not waiting and not self.working:
                return
            for task, answer in self.answers(on_report):
                if isinstance(answer, Failed):
                    raise answer.error
                if isinstance(answer, Done):
                    deaths.pop(id(task), None)
                    yield answer.result
                    continue
                deaths[id(task)] += 1  # a task is kept until it is done: meanwhile no other has its identity
                if deaths[id(task)] < MAX_TRIES:
                    waiting.appendleft(task)
                else:
                    del deaths[id(task)]
                    yield given_up(task)

    def begin(self, count: int) -> None:
        """Start workers until so many are beginning, as far as there are places."""
        while len(self.beginning) < count and (free := set(self._places) - set(self._taken.values())):
            worker = self._runner.start(self._opening, min(free))
            self._taken[worker] = min(free)
            self.beginning.append(worker)

    def give(self, task: Task) -> Any:
        """Hand a task to a worker that is idle; the worker."""
        worker = self.idle[-1]
        self.working[worker] = task  # before it is idle no longer: others may look
        self.idle.pop()
        worker.give(task)
        return worker

    def answers(self, on_report: Callable[[Task, Any], None]) -> Iterator[tuple[Task, Answer]]:
        """Wait, if only for a moment; what has become of tasks: done, failed, or that the worker died.

        Raises:
            SupirError: `MAX_TRIES` workers died one after the other before they began.
            Exception: what a worker's beginning raised.
        """

        def hear(worker: Any, what: Any) -> None:
            if worker in self.working:
                on_report(self.working[worker], what)

        for worker, answer in self._runner.wait([*self.working, *self.beginning], hear):
            if answer is Event.DIED:
                worker.end()
                del self._taken[worker]
            if worker in self.beginning:
                self.beginning.remove(worker)
                self._begun(worker, answer)
            else:
                if answer is not Event.DIED:
                    self.idle.append(worker)
                yield self.working.pop(worker), answer

    def _begun(self, worker: Any, answer: Answer) -> None:
        if isinstance(answer, Failed):
            raise answer.error
        if answer is not Event.DIED:
            self.idle.append(worker)
            self._num_stillborn = 0
            return
        self._num_stillborn += 1
        if self._num_stillborn >= MAX_TRIES:
            raise SupirError(f"{MAX_TRIES} workers died before they could begin, {_MOST_OFTEN}")
