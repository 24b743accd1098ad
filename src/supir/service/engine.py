"""The service without HTTP: hand in, look, cancel, delete, hear of news; and the workers behind it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supir.batch.jobs import Outcome
from supir.batch.model import Model
from supir.batch.runners import Answer, Processes, Runner
from supir.errors import BusyError, ClosingError, ServiceError
from supir.service.describing import Describing
from supir.service.folder import Folder, safe
from supir.service.hands import Hand, Running
from supir.service.jobs import StoredJob, Submission
from supir.service.limits import Client
from supir.service.shelf import Shelf
from supir.service.store import Store

if TYPE_CHECKING:
    from supir.caption.spec import PictureCaptioner

__all__ = ["Engine", "Progress"]

REMEMBER = 7 * 24 * 3600.0
"""Seconds for which the row of a job without files is kept."""
_LAST_PATIENCE = 5.0
"""Seconds for a worker to leave its job when the grace is over, before it is killed."""
_GUESS = 30.0
"""Seconds a job takes, until one was measured."""
_MAX_RETRY = 600
_log = logging.getLogger("supir.service")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where an active job is; for any other all is unset."""

    position: int | None = None
    """Queued jobs before it."""
    step: int | None = None
    """Of ``num_steps``; counted as the options count them."""
    preview: bool = False
    """The clean preview is there."""


class Engine:
    """Queue, workers and files. Any thread may call it; `start` first, `close` last.

    Args:
        data: the folder; made if it is not there.
        model: what the workers open.
        num_workers: processes of this machine, each with its copy of the weights.
        max_queued: jobs of all clients that may be queued or running.
        keep: seconds for which results are kept.
        runner: starts the workers, in place of ``num_workers`` processes; it is closed with the engine.
        watched: people watch: uploads are kept as long as results, and what `Views` names is made of every job.
        captioner: asked about photos that are sent for their preview; None asks nobody.

    Raises:
        WeightsError: the model folder is none.
        OptionError: the data folder holds something that no service made, or there is no worker.
        SupirError: the data folder cannot be used, or another service is at work in it.
    """

    def __init__(
        self, data: Path, model: Model, *, num_workers: int = 1, max_queued: int = 1000, keep: float = 24 * 3600.0,
        runner: Runner[Any] | None = None, watched: bool = False, captioner: PictureCaptioner | None = None,
    ) -> None:  # fmt: skip
        _ = model.presets, model.identity  # says at once what is wrong, and is not read again by every worker
        self._runner: Runner[Any] = runner or Processes(num_workers)
        self.model, self.num_workers, self.max_queued, self.keep = model, self._runner.num_workers, max_queued, keep
        self.folder = Folder(data, keep_uploads=watched)
        self.store = Store(self.folder.database)
        self.shelf = Shelf(self.folder, keep, lambda job: self.progress(job).preview)
        self.lock = threading.Condition()
        self.closing = False
        self.failure: str | None = None
        """Why no worker can work."""
        self.on_end: Callable[[str, float], None] = lambda state, seconds: None
        """Called with the state and the seconds at work of each job that was settled."""
        self.on_failure: Callable[[], None] = lambda: None
        self._running: dict[str, Running] = {}
        self._hands = [Hand(self, self.folder, model, self._runner, place) for place in range(self.num_workers)]
        self._listeners: set[Callable[[str | None], None]] = set()
        self._seconds = _GUESS
        self.captioner = None if captioner is None else captioner.name
        """The name of who describes photos."""
        self._describing: Describing | None = None
        if captioner is not None:
            self._describing = Describing(captioner, self.folder, self.store, self.news)
        self._closed = threading.Event()
        self._janitor = threading.Thread(target=self._expire, name="janitor", daemon=True)

    def start(self) -> None:
        """Go on where the last process ended, and let the workers open the weights."""
        self.folder.sweep(*self.store.recover())
        for thread in (*self._hands, self._janitor):
            thread.start()
        if self._describing is not None:
            self._describing.start()

    def close(self, grace: float) -> None:
        """Take no more jobs; wait ``grace`` seconds for those at work, put the others back into the queue, end all."""
        with self.lock:
            self.closing = True
            self.lock.notify_all()
            for hand in self._hands:
                hand.abandon()
        self.news(None)
        end = time.monotonic() + grace
        for hand in self._hands:
            hand.join(max(0.0, end - time.monotonic()))
        with self.lock:
            for running in self._running.values():
                self._stop(running, "close", _LAST_PATIENCE)
        for hand in self._hands:
            hand.join()
        self._runner.close()
        self._closed.set()
        self._janitor.join()
        if self._describing is not None:
            self._describing.close()  # and not waited for: an endpoint may take minutes
        self.folder.close()
        self.news(None)

    @property
    def num_ready(self) -> int:
        """Workers that have opened the weights."""
        return sum(hand.ready for hand in self._hands)

    def check_room(self, client: Client, idempotency_key: str | None) -> None:
        """Raise what `submit` would raise about room and closing, before an upload is taken for nothing."""
        if self.closing:
            raise ClosingError("the service is being stopped and takes no new jobs; come back in a moment", 10)
        try:
            self.store.check_room(client, self.max_queued, idempotency_key)
        except BusyError as error:
            raise self._busy(error) from None

    def submit(self, new: Submission, client: Client) -> tuple[StoredJob, bool]:
        """Queue a job whose upload lies in the folder; (the job, whether it is new). Otherwise the upload is removed.

        Raises:
            BusyError, ClosingError: there is no room.
            OptionError: the idempotency key came with another request before.
        """
        try:
            safe(self.folder.upload(new.id))
            self.check_room(client, new.idempotency_key)
            job, is_new = self.store.add(new, client, self.max_queued)
        except BaseException as error:
            self.folder.remove(new.id)
            raise (self._busy(error) if isinstance(error, BusyError) else error) from None
        if not is_new:
            self.folder.remove(new.id)
            return job, False
        _log.info("job queued", extra={"job": job.id, "client": job.client})
        with self.lock:
            self.lock.notify()
        return job, True

    def look(self, job: str, client: Client) -> tuple[StoredJob, Progress]:
        """A job of this client, and where it is.

        Raises:
            JobNotFoundError: the client has none of this ID.
        """
        with self.lock:  # so that the two agree
            found = self.store.get(job, client.name)
            return found, self.progress(found)

    def lively(self, client: Client, since: float) -> list[tuple[StoredJob, Progress]]:
        """The jobs of which there may be news: active, or ended or described ``since`` (seconds since 1970)."""
        with self.lock:
            jobs, places = self.store.lively(client.name, since), self.store.positions()
            queued = {job.id: Progress(position=places.get(job.id)) for job in jobs if job.state == "queued"}
            return [(job, queued.get(job.id) or self.progress(job)) for job in jobs]

    def progress(self, job: StoredJob) -> Progress:
        """Where a job is."""
        if job.state == "queued":
            return Progress(position=self.store.position(job))
        if job.state == "running":
            running = self._running.get(job.id)
            if running is not None and running.fraction is not None:
                return Progress(step=round(running.fraction * job.options.num_steps), preview=True)
            return Progress(step=0)
        return Progress(preview=job.state == "done")

    def cancel(self, job: StoredJob) -> None:
        """Cancel a job for good, and ask its worker to leave it if it is at work; one that has ended stays as it is."""
        with self.lock:
            if not self.store.cancel(job.id):
                return
            seconds = self._dismiss(job)
        self._note(job, "cancelled", seconds)
        self.news(None)

    def delete(self, job: StoredJob) -> None:
        """Forget a job and remove its files; it is stopped if it is at work."""
        with self.lock:
            self.store.delete(job.id)
            self._dismiss(job)
        _log.info("job deleted", extra={"job": job.id, "client": job.client})
        self.news(None)

    def listen(self, listener: Callable[[str | None], None]) -> None:
        """Have it called, from any thread, with the ID of a job that there is news of; with None: of any job."""
        self._listeners.add(listener)

    def news(self, job: str | None) -> None:
        """Tell the listeners."""
        for listener in tuple(self._listeners):
            listener(job)

    # What hands ask: see `supir.service.hands.Desk`.

    def take(self, hand: Hand) -> Running | None:
        """As `Desk.take`."""
        with self.lock:
            while not self.closing:
                job = self.store.claim()
                if job is not None:
                    running = self._running[job.id] = Running(job, hand=hand)
                    break
                self.lock.wait()
            else:
                return None
        _log.info("job begun", extra={"job": job.id, "client": job.client, "tries": job.tries})
        self.news(None)
        return running

    def told(self, running: Running) -> None:
        """As `Desk.told`."""
        self.news(running.job.id)

    def settle(self, running: Running, answer: Answer) -> None:
        """As `Desk.settle`. The result has its name, and is on the disk, before the job is done."""
        job, seconds = running.job, time.time() - (running.job.started or time.time())
        with self.lock:
            state, error, sha256 = self._verdict(running, answer)
            if state == "queued":
                state = self.store.put_back(job.id, died=running.stop != "close") or "left"
            elif not self.store.finish(job.id, state, error=error, sha256=sha256):
                state = "left"
            if state == "queued":
                self.lock.notify()
            elif state != "done":
                self.folder.remove(job.id)
            else:
                self.folder.done(job.id)
            running.hand = None
            del self._running[job.id]
        if state == "done" and job.until == "preview":
            if self._describing is not None:
                self._describing.add(job)
        elif state == "done":
            self._seconds = 0.8 * self._seconds + 0.2 * seconds
        if state != "left":  # else it was cancelled or deleted while it was at work, which has been told
            self._note(job, state, seconds)
        self.news(None)

    def give_up(self, reason: str) -> None:
        """As `Desk.give_up`."""
        self.failure = reason
        _log.error("no worker can work", extra={"error": reason})
        self.on_failure()

    def _verdict(self, running: Running, answer: Answer) -> tuple[str, str | None, str | None]:
        """(state, sentence of a failure, SHA-256 of the result)."""
        job = running.job
        if isinstance(answer, Outcome) and answer.error is None:
            try:
                safe(self.folder.result(job.id, job.suffix))
            except OSError as error:
                return "failed", f"{job.name}: the result cannot be stored: {error.strerror}", None
            return "done", None, answer.sha256
        if running.stop == "cancel":
            return "left", None, None
        if running.stop == "close" or not isinstance(answer, Outcome):
            return "queued", None, None
        if answer.unexpected:
            _log.error("mistake of ours", extra={"job": job.id, "error": answer.unexpected})
            return "failed", f"{job.name}: cannot be restored, by a mistake of ours; the service's log has more", None
        text = (answer.error or "").replace(str(self.folder.upload(job.id)), job.name)
        return "failed", text.replace(str(self.folder.path), "the service's folder"), None

    def _dismiss(self, job: StoredJob) -> float:
        """Remove the files of a job that nobody wants, or have its worker leave it first; its seconds at work."""
        running = self._running.get(job.id)
        if running is None:
            self.folder.remove(job.id)
            return 0.0
        self._stop(running, "cancel")
        return time.time() - (running.job.started or time.time())

    def _stop(self, running: Running, why: str, patience: float | None = None) -> None:
        if not running.stop or why == "cancel":
            running.stop = why
        if running.hand is not None:
            running.hand.stop(running, *(() if patience is None else (patience,)))

    def _busy(self, error: BusyError) -> BusyError:
        waiting = sum(self.store.counts()[state] for state in ("queued", "running"))
        seconds = self._seconds * max(1, waiting) / (2 * self.num_workers)
        return BusyError(str(error), max(1, min(_MAX_RETRY, round(seconds))))

    def _note(self, job: StoredJob, state: str, seconds: float) -> None:
        self.on_end(state, seconds)
        told = {"job": job.id, "client": job.client, "state": state, "seconds": round(seconds, 3)}
        _log.info("job put back" if state == "queued" else "job ended", extra=told)

    def _expire(self) -> None:
        while not self._closed.wait(min(30.0, self.keep / 4)):
            try:
                expired = self.store.expire(self.keep, REMEMBER)
            except ServiceError as error:
                _log.error("nothing can expire", extra={"error": str(error)})
                continue
            for job in expired:
                self.folder.remove(job)
                self.news(job)
