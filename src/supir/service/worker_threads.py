"""Threads that each keep one worker, give it job after job, and settle what becomes of each.

The worker is one of a pool (`supir.pool`): it opens the weights once, can be asked to leave a job after the step it is
at, and is replaced when it dies.
"""

from __future__ import annotations

import logging
import threading
import traceback
from dataclasses import dataclass
from typing import Any, Protocol

from supir.caption import Caption
from supir.errors import ServiceError, SupirError
from supir.jobs.job import Job, Outcome
from supir.pool import Done, Failed, Runner, WorkerPool
from supir.service.data_folder import Folder
from supir.service.stored_job import StoredJob
from supir.service.transfer import Transfer, failure

_log = logging.getLogger("supir.service")


class Stoppable(Protocol):
    """A worker that can be asked to leave its job: a process of this machine, or an actor on Ray."""

    def stop(self) -> None:
        """Ask it to leave the job it has; it answers with an outcome, and is ready again."""

    def kill(self) -> None:
        """Let it die at once: whoever waits for it hears of that."""


@dataclass
class ActiveJob:
    """A job at work, as everybody may look at it."""

    job: StoredJob
    fraction: float | None = None
    """Of the sampling that is done; None until the clean preview is there."""
    stop: str = ""
    """Why it was asked to stop: ``cancel`` or ``close``."""
    worker: Stoppable | None = None
    """Who has it."""


class Dispatcher(Protocol):
    """Where threads take jobs and bring them back: the engine."""

    lock: threading.Condition
    """Held while it is looked whether a worker may be asked to stop, and while it is; never for long."""
    closing: bool

    def take(self) -> ActiveJob | None:
        """Wait for a job; None when the service closes.

        Raises:
            ServiceError: the database refuses.
        """

    def given(self, active: ActiveJob, worker: Stoppable) -> None:
        """A worker has a job; it is asked to leave it, if that was wanted meanwhile."""

    def told(self, active: ActiveJob) -> None:
        """There is news of a job."""

    def settle(self, active: ActiveJob, outcome: Outcome | None) -> None:
        """Write down what became of a job; None: its worker died.

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
        dispatcher: gives the jobs.
        folder: where their files are.
        transfer: how those come to the worker and back.
        runner: starts it; its workers are `Stoppable`.
        place: the number of this thread, from 0.
    """

    def __init__(
        self, dispatcher: Dispatcher, folder: Folder, transfer: Transfer, runner: Runner[Any], place: int
    ) -> None:
        super().__init__(name=f"worker-{place}", daemon=True)
        self._dispatcher, self._folder, self._transfer, self._place = dispatcher, folder, transfer, place
        self._pool = WorkerPool[Any, Any](runner, transfer.opening, [place])

    @property
    def ready(self) -> bool:
        """The worker has opened the weights."""
        return bool(self._pool.idle or self._pool.working)

    def run(self) -> None:
        """Work until the service closes, or no worker can open the weights."""
        try:
            with self._pool:
                while not self._dispatcher.closing:
                    if not self._pool.idle:
                        self._open()
                    elif (active := self._taken()) is not None:
                        self._settle(active, self._outcome(active))
        except SupirError as error:
            if not self._dispatcher.closing:
                self._dispatcher.give_up(str(error))
        except Exception as error:  # a mistake of ours, which must not leave a service that does nothing
            _log.exception("mistake of ours", extra={"worker": self._place})
            self._dispatcher.give_up(f"{type(error).__name__}: {error}")

    def abandon(self) -> None:
        """Kill a worker that is still opening the weights, as the service closes."""
        for worker in tuple(self._pool.beginning):
            worker.kill()

    def _open(self) -> None:
        """Start a worker where there is none, and wait a moment for it."""
        self._pool.begin(1)
        if not self._dispatcher.closing:
            list(self._pool.answers(lambda job, report: None))
        if self._pool.idle:
            _log.info("worker ready", extra={"worker": self._place})

    def _taken(self) -> ActiveJob | None:
        try:
            return self._dispatcher.take()
        except ServiceError as error:
            self._dispatcher.rest(error)
            return None

    def _outcome(self, active: ActiveJob) -> Outcome | None:
        """What becomes of a job; None where the worker dies at it."""
        job = self._job(active.job)
        try:
            task = self._transfer.pack(job)
        except OSError as error:
            return failure(job, error)
        if active.stop:
            return Outcome(source=job.source, error="stopped before it began")
        self._dispatcher.given(active, self._pool.give(task))  # which may take a while, the picture with it

        def hear(_: Any, report: Any) -> None:
            fraction = self._transfer.heard(job, report)
            if fraction is not None:
                active.fraction = fraction
                self._dispatcher.told(active)

        while True:
            for _, answer in self._pool.answers(hear):
                if isinstance(answer, Done):
                    return self._transfer.unpack(job, answer.result)
                if isinstance(answer, Failed):
                    trace = "".join(traceback.format_exception(answer.error))
                    return Outcome(source=job.source, error=str(answer.error), unexpected=trace)
                _log.warning("worker died", extra={"worker": self._place, "job": active.job.id})
                return None

    def _job(self, stored: StoredJob) -> Job:
        folder, alone = self._folder, stored.until == "preview"
        return Job(
            source=folder.upload(stored.id), target=folder.result(stored.id, stored.suffix), options=stored.options,
            preview=None if alone else folder.preview(stored.id), preview_alone=alone,
            views=folder.views(stored.id) if folder.keep_uploads else None,
            caption=Caption(text=stored.caption, captioner=stored.captioner or "") if stored.caption else None,
        )  # fmt: skip

    def _settle(self, active: ActiveJob, outcome: Outcome | None) -> None:
        while True:
            try:
                self._dispatcher.settle(active, outcome)
                return
            except ServiceError as error:
                if self._dispatcher.closing:
                    about = {"job": active.job.id, "error": str(error)}
                    _log.error("a job is begun again at the next start", extra=about)
                    return
                self._dispatcher.rest(error)
