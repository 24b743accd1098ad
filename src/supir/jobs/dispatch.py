"""Jobs handed to workers, and what follows from their answers: one loop for every runner.

Workers are started when there is work for them. One that dies is replaced, and its picture is tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

from supir.errors import SupirError
from supir.jobs.job import Job, Outcome
from supir.jobs.model import Model
from supir.jobs.workers import Answer, AnyWorker, Event, Runner

__all__ = ["MAX_TRIES", "work"]

MAX_TRIES = 3
"""Deaths of workers at one picture, or one after the other at opening the weights, before it is given up."""


def work(
    tasks: Iterator[Job | Outcome],
    model: Model,
    runner: Runner[AnyWorker],
    on_fraction: Callable[[Job, float], None] = lambda job, fraction: None,
) -> Iterator[Outcome]:
    """Every job done or given up, in the order in which they are finished.

    Args:
        tasks: jobs, taken when a worker is free for them; outcomes that are known already are passed on.
        model: what every worker opens, once.
        runner: who works.
        on_fraction: told how much of a job's sampling is done, from 0 to 1, where the runner tells.

    Raises:
        WeightsError: the weights cannot be opened.
        SupirError: worker after worker dies while it opens them.
    """
    crew = _Dispatcher(model, runner, on_fraction)
    try:
        more = True
        while True:
            while more and len(crew.waiting) < crew.num_free:
                task = next(tasks, None)
                if task is None:
                    more = False
                elif isinstance(task, Outcome):
                    yield task
                else:
                    crew.waiting.append(_Try(job=task))
            crew.hand_out()
            if not crew.waiting and not crew.working:
                return
            yield from crew.finished()
    finally:
        crew.end()


@dataclass(frozen=True, kw_only=True)
class _Try:
    job: Job
    number: int = 1


class _Dispatcher(Generic[AnyWorker]):
    """The workers there are, and what each does."""

    def __init__(self, model: Model, runner: Runner[AnyWorker], on_fraction: Callable[[Job, float], None]) -> None:
        self.waiting: deque[_Try] = deque()
        """To be handed out."""
        self.working: dict[AnyWorker, _Try] = {}
        self._opening: list[AnyWorker] = []
        self._idle: list[AnyWorker] = []
        self._places: dict[AnyWorker, int] = {}
        self._num_stillborn = 0
        self._model, self._runner, self._on_fraction = model, runner, on_fraction

    @property
    def num_free(self) -> int:
        """Workers that could do something, those that are not started yet included."""
        return self._runner.num_workers - len(self.working)

    def hand_out(self) -> None:
        """Give what is waiting to those who are ready, and start others for the rest."""
        while self.waiting and self._idle:
            worker = self._idle.pop()
            self.working[worker] = self.waiting.popleft()
            worker.give(self.working[worker].job)
        while len(self._opening) < min(len(self.waiting), self._runner.num_workers - len(self.working)):
            place = min(set(range(self._runner.num_workers)) - set(self._places.values()))
            worker = self._runner.start(self._model, place)
            self._places[worker] = place
            self._opening.append(worker)

    def finished(self) -> Iterator[Outcome]:
        """Wait for answers; what has become of jobs."""
        for worker, answer in self._runner.wait([*self.working, *self._opening], self._tell):
            if worker in self._opening:
                self._opening.remove(worker)
                self._born(worker, answer)
                continue
            attempt = self.working.pop(worker)
            if isinstance(answer, Outcome):
                self._idle.append(worker)
                yield answer
                continue
            self._bury(worker)
            if attempt.number < MAX_TRIES:
                self.waiting.appendleft(_Try(job=attempt.job, number=attempt.number + 1))
            else:
                error = (
                    f"{attempt.job.source}: {MAX_TRIES} workers died at it, most often for lack of memory; try it with"
                    " fewer workers or smaller tiles"
                )
                yield Outcome(source=attempt.job.source, target=attempt.job.target, error=error)

    def end(self) -> None:
        """End all workers at once."""
        for worker in self._places:
            worker.end()

    def _tell(self, worker: AnyWorker, fraction: float) -> None:
        if worker in self.working:
            self._on_fraction(self.working[worker].job, fraction)

    def _born(self, worker: AnyWorker, answer: Answer) -> None:
        if answer is Event.READY:
            self._idle.append(worker)
            self._num_stillborn = 0
            return
        self._bury(worker)
        self._num_stillborn += 1
        if self._num_stillborn >= MAX_TRIES:
            raise SupirError(
                f"{MAX_TRIES} workers died while they opened the weights, most often for lack of memory; run the same"
                " command again with fewer workers: it goes on where it was"
            )

    def _bury(self, worker: AnyWorker) -> None:
        worker.end()
        del self._places[worker]
