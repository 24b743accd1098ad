"""The service without HTTP: hand in, look, cancel, delete, hear of news; and the workers behind it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supir.errors import BusyError, ClosingError, NoRoomError, ServiceError, StorageError
from supir.jobs.job import Outcome
from supir.jobs.model import Model
from supir.pool import Processes, Runner
from supir.service.archive import Archive
from supir.service.data_folder import Folder, safe
from supir.service.disk_room import Room, with_reserve
from supir.service.limits import Client
from supir.service.store import Store
from supir.service.stored_job import ACTIVE, StoredJob, Submission
from supir.service.threads import ActiveJob, CaptionThread, Stoppable, WorkerThread, verdict
from supir.service.transfer import SentAlong, Transfer

if TYPE_CHECKING:
    from supir.caption.spec import PictureCaptioner

REMEMBER = 7 * 24 * 3600.0
"""Seconds for which the row of a job without files is kept."""
_PATIENCE = 10.0
"""Seconds for a worker to leave a job before it is killed: a step, or the encoding, of a large picture takes long."""
_LAST_PATIENCE = 5.0
"""Seconds for a worker to leave its job when the grace is over, before it is killed."""
_GUESS = 30.0
"""Seconds a job takes, until one was measured."""
_MAX_RETRY = 600
_REST = 5.0
"""Seconds for which no job is begun after one that found no room on a disk, times the tries it has had."""
_PAUSE = 2.0
"""Seconds until the database is asked again that refused."""
_log = logging.getLogger("supir.service")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where an active job is; for any other all is unset."""

    position: int | None = None
    """Queued jobs before it."""
    waits_for: str | None = None
    """What a queued job waits for beside those before it, where it is not only for a worker to be done."""
    step: int | None = None
    """Of ``num_steps``; counted as the options count them."""
    preview: bool = False
    """The clean preview is there."""
    share: float | None = None
    """Of the work that is done, from 0 to 1, in time."""
    seconds_left: float | None = None
    """That the rest of the work will take; None where that is not known yet."""
    audited: float | None = None
    """Of the audit that follows the restoration, what is done, from 0 to 1; None before it."""


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
        archive: where uploads and results are copied as well.

    Raises:
        WeightsError: the model folder is none.
        OptionError: the data folder holds something that no service made, or there is no worker.
        SupirError: the data folder cannot be used, or another service is at work in it.
    """

    def __init__(
        self, data: Path, model: Model, *, num_workers: int = 1, max_queued: int = 1000, keep: float = 24 * 3600.0,
        runner: Runner[Any] | None = None, watched: bool = False, captioner: PictureCaptioner | None = None,
        archive: Archive | None = None,
    ) -> None:  # fmt: skip
        self._runner: Runner[Any] = runner or Processes(num_workers)
        model = model.placed(self._runner.device)
        _ = model.presets, model.identity  # says at once what is wrong, and is not read again by every worker
        self.model, self.num_workers, self.max_queued, self.keep = model, self._runner.num_workers, max_queued, keep
        self.folder = Folder(data, keep_uploads=watched, keep=keep, archive=archive)
        self.store = with_reserve(data, lambda: Store(self.folder.database))
        self.room = Room(data, self.store.pay, self._wake)
        self.lock = threading.Condition()
        """Held for what is in memory alone: nobody waits for a disk, a database or a process to whom it is needed."""
        self._num_calls = 0
        self._rest_until = 0.0
        self.closing = False
        self.failure: str | None = None
        """Why no worker can work."""
        self.on_end: Callable[[str, float], None] = lambda state, seconds: None
        """Called with the state and the seconds at work of each job that was settled."""
        self.on_failure: Callable[[], None] = lambda: None
        self._active: dict[str, ActiveJob] = {}
        transfer = Transfer(model) if self._runner.shared_folders else SentAlong(model)
        self._threads = [WorkerThread(self, transfer, self._runner, place) for place in range(self.num_workers)]
        self._listeners: set[Callable[[StoredJob | None], None]] = set()
        self._seconds = _GUESS
        self.captioner = None if captioner is None else captioner.name
        """The name of who describes photos."""
        self._captions = None if captioner is None else CaptionThread(self, captioner)
        self._closed = threading.Event()
        self._janitor = threading.Thread(target=self._tidy, name="janitor", daemon=True)

    def start(self) -> None:
        """Go on where the last process ended, and let the workers open the weights."""
        with_reserve(self.folder.path, self._recover)
        self.room.start()
        for thread in (*self._threads, self._janitor):
            thread.start()
        if self._captions is not None:
            self._captions.start()

    def close(self, shutdown_timeout: float) -> None:
        """Take no more jobs; wait ``shutdown_timeout`` seconds for those at work, put the others back, end all."""
        with self.lock:
            self.closing = True
            self.lock.notify_all()
            for thread in self._threads:
                thread.abandon()
        self.news(None)
        end = time.monotonic() + shutdown_timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self.lock:
            for active in self._active.values():
                self._stop(active, "close", _LAST_PATIENCE)
        for thread in self._threads:
            thread.join()
        self._runner.close()
        self._closed.set()
        self._janitor.join()
        if self._captions is not None:
            self._captions.close()  # and not waited for: an endpoint may take minutes
        self.room.close()
        self.store.close()
        self.folder.close()
        self.news(None)

    @property
    def num_ready(self) -> int:
        """Workers that have opened the weights."""
        return sum(thread.ready for thread in self._threads)

    def check_room(self, client: Client, idempotency_key: str | None) -> None:
        """Raise what `submit` would raise about room and closing, before an upload is taken for nothing."""
        if self.closing:
            raise ClosingError("the service is being stopped and takes no new jobs; come back in a moment", 10)
        self.room.check()
        try:
            self.store.check_room(client, self.max_queued, idempotency_key)
        except BusyError as error:
            raise self._busy(error) from None

    def submit(self, new: Submission, client: Client) -> tuple[StoredJob, bool]:
        """Queue a job whose upload lies in the folder; (the job, whether it is new). Otherwise the upload is removed.

        Raises:
            BusyError, ClosingError, StorageError: there is no room.
            OptionError: the idempotency key came with another request before.
        """
        try:
            with self.room.minded():
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
        self._call()
        return job, True

    def look(self, job: str, client: Client) -> tuple[StoredJob, Progress]:
        """A job of this client, and where it is.

        Raises:
            JobNotFoundError: the client has none of this ID.
        """
        found = self.store.get(job, client.name)
        return found, self.progress(found)

    def active_or_recent(self, client: Client, since: float) -> list[tuple[StoredJob, Progress]]:
        """The jobs of which there may be news: active, or ended or described ``since`` (seconds since 1970)."""
        jobs, places = self.store.active_or_recent(client.name, since), self.store.positions()
        return [(job, self.progress(job, places.get(job.id, 0))) for job in jobs]

    def progress(self, job: StoredJob, position: int | None = None) -> Progress:
        """Where a job is; ``position`` where it is known that it would be there if it is queued."""
        if job.state == "queued":
            position = self.store.position(job) if position is None else position
            return Progress(position=position, waits_for=self._waited_for())
        if job.state == "running":
            active = self._active.get(job.id)
            if active is None or active.reached is None:
                return Progress(step=0, share=0.0)
            now = active.reached.after(time.monotonic() - active.heard)
            return Progress(
                step=round(now.steps * job.options.num_steps), preview=now.previewed, share=now.share,
                seconds_left=now.seconds_left, audited=now.audited,
            )  # fmt: skip
        return Progress(preview=job.state == "done")

    def cancel(self, job: StoredJob) -> None:
        """Cancel a job for good, and ask its worker to leave it if it is at work; one that has ended stays as it is."""
        if not self._ended(job, "cancelled"):
            return
        self._note(job, "cancelled", self._dismiss(job))
        self._made_room()
        self.news(job)
        self.news(None)

    def delete(self, job: StoredJob) -> None:
        """Forget a job and remove its files; it is stopped if it is at work."""
        self.folder.forget(job.id)
        self._ended(job, None)
        self._dismiss(job)
        self._made_room()
        _log.info("job deleted", extra={"job": job.id, "client": job.client})
        self.news(job)
        self.news(None)

    def expire(self) -> None:
        """Remove what has been kept for as long as results are; it is done again and again without being asked.

        Raises:
            ServiceError: the database cannot be read.
        """
        expired = self.store.expire(self.keep, REMEMBER)
        for job in expired:
            self.folder.remove(job.id)
            self.news(job)
        if expired:
            self._made_room()

    def listen(self, listener: Callable[[StoredJob | None], None]) -> None:
        """Have it called, from any thread, with a job that there is news of, as it was; with None: of any job."""
        self._listeners.add(listener)

    def news(self, job: StoredJob | None) -> None:
        """Tell the listeners."""
        for listener in tuple(self._listeners):
            listener(job)

    # What the threads ask.

    def take(self) -> ActiveJob | None:
        """Wait for a job; None when the service closes.

        Raises:
            ServiceError: the database refuses.
        """
        while not self.closing:
            num_calls, rest = self._num_calls, self._rest_until - time.monotonic()
            job = self.store.claim() if rest <= 0 and self.room.trouble is None else None
            with self.lock:
                if job is None:
                    if self._num_calls == num_calls and not self.closing:
                        self.lock.wait(rest if rest > 0 else None)
                    continue
                # One that is taken while the service closes is put back as those are that are stopped for that.
                active = self._active[job.id] = ActiveJob(job, stop="close" * self.closing)
            _log.info("job begun", extra={"job": job.id, "client": job.client, "tries": job.tries})
            self.news(None)
            return active
        return None

    def given(self, active: ActiveJob, worker: Stoppable) -> None:
        """A worker has a job; it is asked to leave it, if that was wanted meanwhile."""
        with self.lock:
            active.worker = worker
            if active.stop:
                self._stop(active, active.stop)

    def rest(self, error: ServiceError) -> None:
        """Wait a moment, since the database has refused."""
        self.room.refused(error)
        with self.lock:
            if not self.closing:
                self.lock.wait(_PAUSE)

    def settle(self, active: ActiveJob, outcome: Outcome | None) -> None:
        """Write down what became of a job; None: its worker died. A result is on the disk before its job is done.

        Raises:
            ServiceError: the database refuses; to be tried again.
        """
        job, seconds = active.job, time.time() - (active.job.started or time.time())
        state, error, sha256 = verdict(self.folder, active, outcome)
        audited = outcome.audit if outcome is not None and state == "done" else None
        if state == "queued":  # what goes before the database is told: then another thread may take it at once
            self.folder.tidy(job.id)
            if error is not None:
                self._rest_until = time.monotonic() + _REST * job.tries
                self.room.doubt()
            why = {} if error is None else {"why": error}
            state = self.store.put_back(job.id, died=active.stop != "close", **why) or "left"
        elif not self.store.finish(job.id, state, error=error, sha256=sha256, audited=audited):
            state = "left"
        with self.lock:
            active.worker = None
            if self._active.get(job.id) is active:
                del self._active[job.id]
            unwanted = active.stop == "cancel"  # whoever ends the job from now on removes its files
        if unwanted or state in ("failed", "left"):
            self.folder.remove(job.id)
        elif state == "done":
            self.folder.done(job.id)
        else:
            self._call()
        if state == "done" and job.until == "preview":
            if self._captions is not None and job.crop is None:
                self._captions.add(job)
        elif state == "done":
            self._seconds = 0.8 * self._seconds + 0.2 * seconds
        if state != "left":  # else it was cancelled or deleted while it was at work, which has been told
            self._note(job, state, seconds)
        self.news(None)

    def give_up(self, reason: str) -> None:
        """No worker can open the weights."""
        self.failure = reason
        _log.error("no worker can work", extra={"error": reason})
        self.on_failure()

    def _dismiss(self, job: StoredJob) -> float:
        """Remove the files of a job that nobody wants, or have its worker leave it first; its seconds at work."""
        with self.lock:
            active = self._active.get(job.id)
            if active is not None:
                self._stop(active, "cancel")
        if active is None:
            self.folder.remove(job.id)
            return 0.0
        return time.time() - (active.job.started or time.time())

    def _recover(self) -> None:
        self.store.forget_missing(self.folder.kept())
        self.folder.sweep(*self.store.recover())

    def _waited_for(self) -> str | None:
        if self.room.trouble is not None or self._rest_until > time.monotonic():
            return "room on the disk" if isinstance(self.room.trouble, NoRoomError | None) else "the database"
        if self.num_ready == 0:
            return "a worker that opens the model"
        if any(active.stop == "cancel" for active in tuple(self._active.values())):
            return "the worker to leave a cancelled picture"
        return None

    def _wake(self) -> None:
        """There is room again."""
        self._call()
        self.news(None)

    def _call(self) -> None:
        """There may be a job to take: threads that wait look, and those that are looking look again."""
        with self.lock:
            self._num_calls += 1
            self.lock.notify_all()

    def _made_room(self) -> None:
        """Files were removed: what rested for lack of room need not."""
        self._rest_until = 0.0
        self._call()
        if self.room.trouble is not None:
            self.room.doubt()

    def _ended(self, job: StoredJob, state: str | None) -> bool:
        """Whether a job is cancelled, or forgotten (None), from now on: by the database, or until that can be written
        by its missing upload.
        """
        if self.room.trouble is None:
            try:
                if state is not None:
                    return self.store.cancel(job.id)
                self.store.delete(job.id)
                return True
            except StorageError as error:
                self.room.refused(error)
        if state is not None and self.store.get(job.id, job.client).state not in ACTIVE:
            return False
        self.store.owe(job.id, state)
        self.folder.abandon(job.id)
        return True

    def _stop(self, active: ActiveJob, why: str, timeout: float = _PATIENCE) -> None:
        """Ask the worker to leave a job, and kill it if it does not; the lock is held."""
        if not active.stop or why == "cancel":
            active.stop = why
        if active.worker is not None:
            active.worker.stop()
            timer = threading.Timer(timeout, self._kill, (active, active.worker))
            timer.daemon = True
            timer.start()

    def _kill(self, active: ActiveJob, worker: Stoppable) -> None:
        with self.lock:
            if active.worker is worker:
                worker.kill()

    def _busy(self, error: BusyError) -> BusyError:
        waiting = sum(self.store.counts()[state] for state in ("queued", "running"))
        seconds = self._seconds * max(1, waiting) / (2 * self.num_workers)
        return BusyError(str(error), max(1, min(_MAX_RETRY, round(seconds))))

    def _note(self, job: StoredJob, state: str, seconds: float) -> None:
        self.on_end(state, seconds)
        told = {"job": job.id, "client": job.client, "state": state, "seconds": round(seconds, 3)}
        _log.info("job put back" if state == "queued" else "job ended", extra=told)

    def _tidy(self) -> None:
        while not self._closed.wait(min(30.0, self.keep / 4)):
            try:
                self.expire()
            except ServiceError as error:
                self.room.refused(error)
