"""Tasks handed to workers, and what follows from their answers: one way for every runner and every kind of work."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Self, TypeVar

from supir.errors import SupirError
from supir.pool.workers import MAX_TRIES, Answer, Done, Event, Failed, Opening, Runner

Task = TypeVar("Task")
Result = TypeVar("Result")

_MOST_OFTEN = "most often for lack of memory; start again with fewer workers: it goes on where it was"


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
