"""The service's workers as actors on a Ray cluster: many machines behind one queue.

Pictures travel with the jobs, so machines share no folder with the service; the weights must lie under the same path on
each. ray itself is imported in `supir.pool.on_ray` alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supir.errors import DeviceLostError, SupirError
from supir.files import lacks_room, sentence, write_whole
from supir.jobs.job import Job, Outcome
from supir.jobs.model import Model
from supir.jobs.ray_workers import begin_actor, placed_on_cluster, result_of, share_of_a_gpu, threads_of_each
from supir.jobs.workers import Answer, Event, OnFraction
from supir.pool.mapping import limit_threads
from supir.pool.on_ray import LOCAL, ray

if TYPE_CHECKING:
    from supir.jobs.restoring import Restoring

__all__ = ["OnRay", "RayWorker"]

_LOOK = 0.2
"""Seconds between two looks at how far a job is."""
_ANSWER = 5.0
"""Seconds for a worker to say so; one that does not may be gone, which Ray finds out."""
_AT_ONCE = 3
"""Calls of a worker at a time: it restores, tells how far it is, and hears that it shall stop."""


class OnRay:
    """Actors that can be asked to leave a job; see `supir.jobs.workers.Runner`. Each thread waits for its own.

    Args:
        num_workers: how many actors; at least 1.
        address: as `supir.jobs.ray_workers.OnRay` takes it.

    Raises:
        SupirError: the cluster cannot be reached.
    """

    def __init__(self, num_workers: int, address: str = LOCAL) -> None:
        self.num_workers = num_workers
        self._num_threads = threads_of_each(num_workers, address)

    def placed(self, model: Model) -> Model:
        """As `Runner.placed`."""
        return placed_on_cluster(model)

    def start(self, model: Model, place: int) -> RayWorker:
        """As `Runner.start`; the worker opens the weights when the cluster has room for it."""
        gpus = share_of_a_gpu(model, self.num_workers)
        return RayWorker(begin_actor(_Restorer, model, place, self._num_threads, gpus=gpus, max_concurrency=_AT_ONCE))

    def wait(self, workers: Sequence[RayWorker], on_fraction: OnFraction[RayWorker]) -> list[tuple[RayWorker, Answer]]:
        """As `Runner.wait`, but for one worker, and for a moment: empty when it has not answered."""
        [worker] = workers
        answer = worker.answer(on_fraction)
        return [] if answer is None else [(worker, answer)]

    def close(self) -> None:
        """Leaves the cluster; ends a local Ray."""
        ray.shutdown()


class RayWorker:
    """A worker on some machine of the cluster."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._reference = handle.open.remote()
        self._job: Job | None = None
        self._has_preview = False

    def give(self, job: Job) -> None:
        """As `Worker.give`; the picture goes along."""
        self._job, self._has_preview = job, False
        try:
            self._reference = self._handle.restore.remote(job, job.source.read_bytes())
        except OSError as error:
            self._reference = ray.put(_failed(job, error))

    def stop(self) -> None:
        """Ask it to leave the job it has, after the step it is at; it answers with an outcome, and is ready again."""
        if self._job is not None:
            self._handle.stop.remote(self._job.target)

    def kill(self) -> None:
        """Let it die at once: whoever waits for it hears of that."""
        ray.kill(self._handle)

    def end(self) -> None:
        """As `Worker.end`."""
        ray.kill(self._handle)

    def answer(self, on_fraction: OnFraction[RayWorker]) -> Answer | None:
        """What it answered, with the files in their places; None if it has not, and then how far it is is told."""
        finished, _ = ray.wait([self._reference], timeout=_LOOK)
        if not finished:
            self._look(on_fraction)
            return None
        answer = result_of(self._reference)
        if not isinstance(answer, _Done):
            event: Event = answer
            return event
        assert self._job is not None
        job, self._job = self._job, None
        try:
            self._keep(job.preview, answer.preview)
            self._keep(job.target, answer.result)
        except OSError as error:
            answer = _failed(job, error)
        return answer.outcome

    def _look(self, on_fraction: OnFraction[RayWorker]) -> None:
        if self._job is None:
            return
        try:
            told: _Told = ray.get(self._handle.tell.remote(not self._has_preview), timeout=_ANSWER)
        except ray.exceptions.RayError:  # what has happened to it comes as its answer
            return
        if told.target == self._job.target and told.fraction is not None:
            with suppress(OSError):  # the result will not find a place either, and says so
                self._has_preview = self._has_preview or self._keep(self._job.preview, told.preview)
            if self._has_preview:
                on_fraction(self, told.fraction)

    @staticmethod
    def _keep(path: Path | None, data: bytes | None) -> bool:
        if path is not None and data is not None:
            write_whole(path, data)
        return data is not None


@dataclass(frozen=True, kw_only=True)
class _Told:
    """Where a worker is."""

    target: Path | None
    fraction: float | None
    """None until the preview is there."""
    preview: bytes | None
    """Only when it was asked for."""


@dataclass(frozen=True, kw_only=True)
class _Done:
    """A job's end, with the files that were made."""

    outcome: Outcome
    result: bytes | None
    preview: bytes | None


class _Restorer:
    """What runs on the cluster."""

    def __init__(self, model: Model, place: int, num_threads: int) -> None:
        self._opening = model, place, num_threads
        self._restoring: Restoring | None = None
        self._told = _Told(target=None, fraction=None, preview=None)
        self._stopped: set[Path] = set()

    def open(self) -> Event:
        limit_threads(self._opening[2])
        from supir.jobs.restoring import Restoring

        self._restoring = Restoring(*self._opening)
        return Event.READY

    def tell(self, with_preview: bool) -> _Told:
        return self._told if with_preview else replace(self._told, preview=None)

    def stop(self, target: Path) -> None:
        self._stopped.add(target)

    def restore(self, job: Job, data: bytes) -> _Done:
        """Restore the picture in a folder of this machine, which is removed."""
        self._told = _Told(target=job.target, fraction=None, preview=None)
        try:
            with tempfile.TemporaryDirectory(prefix="supir-") as folder:
                return self._restored(job, data, Path(folder))
        except OSError as error:
            return _failed(job, error)
        finally:
            self._stopped.discard(job.target)

    def _restored(self, job: Job, data: bytes, folder: Path) -> _Done:
        assert self._restoring is not None
        preview, target = folder / "preview.png", folder / job.target.name
        here = replace(job, source=folder / "upload", target=target, preview=preview)
        here.source.write_bytes(data)

        def on_fraction(fraction: float) -> None:
            shown = self._told.preview or _bytes_of(preview)
            self._told = _Told(target=job.target, fraction=fraction, preview=shown)
            if job.target in self._stopped:
                raise SupirError("stopped on request")

        try:
            outcome = self._restoring(here, on_fraction)
        except DeviceLostError:
            os._exit(1)  # another actor takes the picture over
        error = outcome.error and outcome.error.replace(str(here.source), str(job.source))
        outcome = replace(outcome, source=job.source, target=job.target, error=error)
        return _Done(outcome=outcome, result=_bytes_of(target), preview=self._told.preview)


def _failed(job: Job, error: OSError) -> _Done:
    outcome = Outcome(
        source=job.source, target=job.target, error=sentence(error, job.source), lacks_room=lacks_room(error)
    )
    return _Done(outcome=outcome, result=None, preview=None)


def _bytes_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
