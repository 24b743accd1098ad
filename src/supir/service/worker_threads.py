"""Threads that each keep one worker, give it job after job, and settle what becomes of each.

The worker is a process of this machine (`supir.jobs.workers`) or an actor on Ray (`supir.service.ray_workers`): it
opens the weights once, can be asked to leave a job after the step it is at, and is replaced when it dies.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from supir.caption import Caption
from supir.errors import ServiceError, SupirError
from supir.jobs.job import Job, Outcome
from supir.jobs.model import Model
from supir.jobs.workers import Answer, Event, Runner, Worker
from supir.service.data_folder import Folder
from supir.service.stored_job import StoredJob

__all__ = ["ActiveJob", "Dispatcher", "WorkerThread"]

MAX_STILLBORN = 3
"""Deaths of a worker, one after the other, while it opens the weights, before the service gives up."""
_TIMEOUT = 10.0
"""Seconds for a worker to leave a job before it is killed: a step, or the encoding, of a large picture takes long."""
_log = logging.getLogger("supir.service")


@dataclass
class ActiveJob:
    """A job at work, as everybody may look at it."""

    job: StoredJob
    fraction: float | None = None
    """Of the sampling that is done; None until the clean preview is there."""
    stop: str = ""
    """Why it was asked to stop: ``cancel`` or ``close``."""
    given: bool = False
    """The worker has it."""
    thread: WorkerThread | None = None


class Stoppable(Worker, Protocol):
    """A worker that can be asked to leave its job: a process of this machine, or an actor on Ray."""

    def stop(self) -> None:
        """Ask it to leave the job it has; it answers with an outcome, and is ready again."""

    def kill(self) -> None:
        """Let it die at once: whoever waits for it hears of that."""


class Dispatcher(Protocol):
    """Where hands take jobs and bring them back: the engine."""

    lock: threading.Condition
    """Held while it is looked whether a worker may be asked to stop, and while it is; never for long."""
    closing: bool

    def take(self, thread: WorkerThread) -> ActiveJob | None:
        """Wait for a job; None when the service closes.

        Raises:
            ServiceError: the database refuses.
        """

    def told(self, active: ActiveJob) -> None:
        """There is news of a job."""

    def settle(self, active: ActiveJob, answer: Answer) -> None:
        """Write down what became of a job.

        Raises:
            ServiceError: the database refuses; to be tried again.
        """

    def rest(self, error: ServiceError) -> None:
        """Wait a moment, since the database has refused."""

    def give_up(self, reason: str) -> None:
        """No worker can open the weights."""


class WorkerThread(threading.Thread):
    """One worker, and what it does.

    Args:
        desk: gives the jobs.
        folder: where their files are.
        model: what the worker opens.
        runner: starts it; its workers are `Stoppable`.
        place: the number of this thread, from 0.
    """

    def __init__(self, dispatcher: Dispatcher, folder: Folder, model: Model, runner: Runner[Any], place: int) -> None:
        super().__init__(name=f"worker-{place}", daemon=True)
        self.ready = False
        """The worker has opened the weights."""
        self._dispatcher, self._folder, self._model, self._runner, self._place = (
            dispatcher,
            folder,
            model,
            runner,
            place,
        )
        self._worker: Stoppable | None = None

    def run(self) -> None:
        """Work until the service closes, or no worker can open the weights."""
        try:
            while not self._dispatcher.closing:
                if self._opened() and (active := self._taken()) is not None:
                    self._work(active)
        except SupirError as error:
            self._dispatcher.give_up(str(error))
        except Exception as error:  # a mistake of ours, which must not leave a service that does nothing
            _log.exception("mistake of ours", extra={"worker": self._place})
            self._dispatcher.give_up(f"{type(error).__name__}: {error}")
        finally:
            self._bury()

    def stop(self, active: ActiveJob, timeout: float = _TIMEOUT) -> None:
        """Ask the worker to leave the job, and kill it if it does not; the desk's lock is held."""
        if active.given and self._worker is not None:
            self._worker.stop()
            timer = threading.Timer(timeout, self._kill, (active, self._worker))
            timer.daemon = True
            timer.start()

    def abandon(self) -> None:
        """Kill a worker that is still opening the weights, as the service closes; the desk's lock is held."""
        if self._worker is not None and not self.ready:
            self._worker.kill()

    def _opened(self) -> bool:
        """Whether there is a worker that has opened the weights; False when the service closes."""
        num_stillborn = 0
        while not self.ready and not self._dispatcher.closing:
            worker = self._runner.start(self._model, self._place)  # which takes long: nobody else may wait for it
            with self._dispatcher.lock:
                self._worker = worker
            if self._dispatcher.closing:
                return False
            if self._answer(lambda fraction: None) is Event.READY:
                self.ready = True
                _log.info("worker ready", extra={"worker": self._place})
                break
            self._bury()
            num_stillborn += 1
            if num_stillborn >= MAX_STILLBORN and not self._dispatcher.closing:
                raise ServiceError(
                    f"{num_stillborn} workers died while they opened the weights, most often for lack of memory; start"
                    " the service again with fewer workers: it goes on where it was"
                )
        return self.ready

    def _taken(self) -> ActiveJob | None:
        try:
            return self._dispatcher.take(self)
        except ServiceError as error:
            self._dispatcher.rest(error)
            return None

    def _work(self, active: ActiveJob) -> None:
        job, folder = active.job, self._folder
        alone = job.until == "preview"
        task = Job(
            source=folder.upload(job.id), target=folder.result(job.id, job.suffix), options=job.options,
            preview=None if alone else folder.preview(job.id), preview_alone=alone,
            views=folder.views(job.id) if folder.keep_uploads else None,
            caption=Caption(text=job.caption, captioner=job.captioner or "") if job.caption else None,
        )  # fmt: skip
        if not active.stop and self._worker is not None:
            self._worker.give(task)  # which may take a while, the picture with it
            with self._dispatcher.lock:
                active.given = True
                if active.stop:
                    self.stop(active)
            answer = self._answer(lambda fraction: self._hear(active, fraction))
        else:
            answer = Outcome(source=task.source, error="stopped before it began")
        if answer is Event.DIED:
            _log.warning("worker died", extra={"worker": self._place, "job": job.id})
            self._bury()
        while True:
            try:
                self._dispatcher.settle(active, answer)
                return
            except ServiceError as error:
                if self._dispatcher.closing:
                    _log.error("a job is begun again at the next start", extra={"job": job.id, "error": str(error)})
                    return
                self._dispatcher.rest(error)

    def _hear(self, active: ActiveJob, fraction: float) -> None:
        active.fraction = fraction
        self._dispatcher.told(active)

    def _answer(self, on_fraction: Callable[[float], None]) -> Answer:
        assert self._worker is not None
        while True:
            for _, answer in self._runner.wait([self._worker], lambda worker, fraction: on_fraction(fraction)):
                return answer

    def _kill(self, active: ActiveJob, worker: Stoppable) -> None:
        with self._dispatcher.lock:
            if active.thread is self and self._worker is worker:
                worker.kill()

    def _bury(self) -> None:
        with self._dispatcher.lock:
            worker, self._worker, self.ready = self._worker, None, False
        if worker is not None:
            worker.end()
