"""The engine's threads: each keeps one worker and gives it job after job; one asks the captioner.

A worker is one of a pool (`supir.pool`): it opens the weights once, can be asked to leave a job after the step it is
at, and is replaced when it dies.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from supir.caption import Caption, clean_caption
from supir.errors import ServiceError, SupirError
from supir.files import lacks_room
from supir.jobs.job import Job, Outcome
from supir.pool import Done, Failed, Runner, WorkerPool
from supir.service.data_folder import Folder, safe
from supir.service.store import MAX_TRIES
from supir.service.stored_job import StoredJob
from supir.service.transfer import Transfer, failure

if TYPE_CHECKING:
    from supir.caption.spec import PictureCaptioner
    from supir.restoration.work import Reached
    from supir.service.engine import Engine

_NO_ROOM = f"was begun {MAX_TRIES} times, and each time the service's disk had no room for it; try again later"
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
    reached: Reached | None = None
    """How far the work is; None until its worker tells."""
    heard: float = 0.0
    """When it told that (`time.monotonic`)."""
    stop: str = ""
    """Why it was asked to stop: ``cancel`` or ``close``."""
    worker: Stoppable | None = None
    """Who has it."""


class WorkerThread(threading.Thread):
    """One worker, and what it does.

    Args:
        engine: gives the jobs, and is told what became of each.
        transfer: how their files come to the worker and back.
        runner: starts it; its workers are `Stoppable`.
        place: the number of this thread, from 0.
    """

    def __init__(self, engine: Engine, transfer: Transfer, runner: Runner[Any], place: int) -> None:
        super().__init__(name=f"worker-{place}", daemon=True)
        self._engine, self._transfer, self._place = engine, transfer, place
        self._pool = WorkerPool[Any, Any](runner, transfer.opening, [place])

    @property
    def ready(self) -> bool:
        """The worker has opened the weights."""
        return bool(self._pool.idle or self._pool.working)

    def run(self) -> None:
        """Work until the service closes, or no worker can open the weights."""
        try:
            with self._pool:
                while not self._engine.closing:
                    if not self._pool.idle:
                        self._open()
                    elif (active := self._taken()) is not None:
                        self._settle(active, self._outcome(active))
        except SupirError as error:
            if not self._engine.closing:
                self._engine.give_up(str(error))
        except Exception as error:  # a mistake of ours, which must not leave a service that does nothing
            _log.exception("mistake of ours", extra={"worker": self._place})
            self._engine.give_up(f"{type(error).__name__}: {error}")

    def abandon(self) -> None:
        """Kill a worker that is still opening the weights, as the service closes."""
        for worker in tuple(self._pool.beginning):
            worker.kill()

    def _open(self) -> None:
        """Start a worker where there is none, and wait a moment for it."""
        self._pool.begin(1)
        if not self._engine.closing:
            list(self._pool.answers(lambda job, report: None))
        if self._pool.idle:
            _log.info("worker ready", extra={"worker": self._place})

    def _taken(self) -> ActiveJob | None:
        try:
            return self._engine.take()
        except ServiceError as error:
            self._engine.rest(error)
            return None

    def _outcome(self, active: ActiveJob) -> Outcome | None:
        """What becomes of a job; None where the worker dies at it."""
        job = _job_of(active.job, self._engine.folder)
        try:
            task = self._transfer.pack(job)
        except OSError as error:
            return failure(job, error)
        if active.stop:
            return Outcome(source=job.source, error="stopped before it began")
        self._engine.given(active, self._pool.give(task))  # which may take a while, the picture with it

        def hear(_: Any, report: Any) -> None:
            active.reached, active.heard = self._transfer.heard(job, report), time.monotonic()
            self._engine.news(active.job)

        while True:
            for _, answer in self._pool.answers(hear):
                if isinstance(answer, Done):
                    return self._transfer.unpack(job, answer.result)
                if isinstance(answer, Failed):
                    trace = "".join(traceback.format_exception(answer.error))
                    return Outcome(source=job.source, error=str(answer.error), unexpected=trace)
                _log.warning("worker died", extra={"worker": self._place, "job": active.job.id})
                return None

    def _settle(self, active: ActiveJob, outcome: Outcome | None) -> None:
        while True:
            try:
                self._engine.settle(active, outcome)
                return
            except ServiceError as error:
                if self._engine.closing:
                    about = {"job": active.job.id, "error": str(error)}
                    _log.error("a job is begun again at the next start", extra=about)
                    return
                self._engine.rest(error)


def _job_of(stored: StoredJob, folder: Folder) -> Job:
    alone = stored.until == "preview"
    return Job(
        source=folder.upload(stored.id), target=folder.result(stored.id, stored.suffix), options=stored.options,
        preview=None if alone else folder.preview(stored.id), preview_alone=alone,
        views=folder.views(stored.id) if folder.keep_uploads and stored.crop is None else None, crop=stored.crop,
        caption=Caption(text=stored.caption, captioner=stored.captioner or "") if stored.caption else None,
        audit=stored.audit,
    )  # fmt: skip


def verdict(folder: Folder, active: ActiveJob, outcome: Outcome | None) -> tuple[str, str | None, str | None]:
    """(state, sentence, SHA-256 of the result), where the outcome is None of a job at which its worker died.

    The state is ``left`` where the job was cancelled or deleted meanwhile.

    A result is on the disk, and in the archive, before its job is done. A job for which there was no room on a disk, or
    that the archive refused, is queued again; the sentence then says what it fails with when that was too often.
    """
    job = active.job
    if outcome is not None and outcome.error is None:
        try:
            for path in folder.made(job):
                safe(path)
        except OSError as error:
            if lacks_room(error):
                return "queued", _NO_ROOM, None
            return "failed", f"{job.name}: the result cannot be stored: {error.strerror}", None
        if folder.archive is not None and job.until != "preview":
            try:
                folder.archive.keep(job.id, [folder.upload(job.id), *folder.made(job)])
            except OSError as error:
                return "queued", str(error), None
        return "done", None, outcome.sha256
    if active.stop == "cancel":
        return "left", None, None
    if active.stop == "close" or outcome is None:
        return "queued", None, None
    if outcome.lacks_room:
        return "queued", _NO_ROOM, None
    if outcome.unexpected:
        _log.error("mistake of ours", extra={"job": job.id, "error": outcome.unexpected})
        return "failed", f"{job.name}: cannot be restored, by a mistake of ours; the service's log has more", None
    text = (outcome.error or "").replace(str(folder.upload(job.id)), job.name)
    return "failed", text.replace(str(folder.path), "the service's folder"), None


class CaptionThread(threading.Thread):
    """Describes photos that were sent for their preview, one after the other, while people look at them.

    A photo that gets no caption keeps none, and the log says why.

    Args:
        engine: has the previews, and is told of a job that has its caption.
        captioner: asked in this thread alone.
    """

    def __init__(self, engine: Engine, captioner: PictureCaptioner) -> None:
        super().__init__(name="captions", daemon=True)
        self._engine, self._captioner, self._closing = engine, captioner, False
        self._waiting: queue.SimpleQueue[StoredJob | None] = queue.SimpleQueue()

    def add(self, job: StoredJob) -> None:
        """A preview is done."""
        self._waiting.put(job)

    def close(self) -> None:
        """End after the picture that is being described."""
        self._closing = True
        self._waiting.put(None)

    def run(self) -> None:
        """Until closed."""
        with self._captioner:
            while (job := self._waiting.get()) is not None:
                try:
                    caption = self._caption(job)
                except (SupirError, OSError, MemoryError) as error:
                    _log.warning("no caption", extra={"job": job.id, "error": str(error) or type(error).__name__})
                    caption = ""
                except Exception:  # a mistake of ours in one picture must not cost the others their captions
                    _log.exception("mistake of ours", extra={"job": job.id})
                    caption = ""
                self._keep(job, caption)
                self._engine.news(job)

    def _keep(self, job: StoredJob, caption: str) -> None:
        while not self._closing:
            try:
                self._engine.store.describe(job.id, caption, self._captioner.name)
                return
            except ServiceError as error:
                self._engine.rest(error)

    def _caption(self, job: StoredJob) -> str:
        from supir import image
        from supir.caption.spec import readable

        return clean_caption(self._captioner(readable(image.read(self._engine.folder.result(job.id, job.suffix)))))
