"""How a picture comes to a worker, and its result back: on the disk that both have, or with the messages."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supir.files import lacks_room, sentence, write_whole
from supir.jobs.auditing import audit_files
from supir.jobs.job import Job, Outcome
from supir.jobs.model import Model
from supir.jobs.restoring import OpenModel, Restoring
from supir.pool import Opening, Report

if TYPE_CHECKING:
    from supir.restoration.work import Reached


class Transfer:
    """What workers are told instead of jobs, progress and outcomes: these themselves, of workers that see the files.

    Args:
        model: what the workers open.
    """

    def __init__(self, model: Model) -> None:
        self.opening: Opening[Any, Any] = OpenModel(model)
        """How a worker begins that understands it."""

    def pack(self, job: Job) -> Any:
        """The task.

        Raises:
            OSError: the picture cannot be read.
        """
        return job

    def heard(self, job: Job, report: Any) -> Reached:
        """How far the work is; ``previewed`` only where the clean preview is in its place."""
        reached: Reached = report
        return reached

    def unpack(self, job: Job, result: Any) -> Outcome:
        """What became of the job; its files are in their places."""
        outcome: Outcome = result
        return outcome


class SentAlong(Transfer):
    """Workers of machines that share no folder with the service; the weights lie under the same path on each."""

    def __init__(self, model: Model) -> None:
        self.opening = _OpenElsewhere(model)

    def pack(self, job: Job) -> _Sent:
        """As `Transfer.pack`."""
        return _Sent(job=job, data=job.source.read_bytes())

    def heard(self, job: Job, report: _Reported) -> Reached:
        """As `Transfer.heard`."""
        with suppress(OSError):  # the result will not find a place either, and says so
            _keep(job.preview, report.preview)
        return report.reached._replace(previewed=job.preview is not None and job.preview.exists())

    def unpack(self, job: Job, result: _Returned) -> Outcome:
        """As `Transfer.unpack`."""
        try:
            _keep(job.preview, result.preview)
            _keep(job.target, result.data)
            for path, data in zip(audit_files(job.target), result.audit, strict=True):
                _keep(path, data)
        except OSError as error:
            return failure(job, error)
        return result.outcome


def failure(job: Job, error: OSError) -> Outcome:
    """The outcome of a job at which the disk refused."""
    return Outcome(
        source=job.source, target=job.target, error=sentence(error, job.source), lacks_room=lacks_room(error)
    )


@dataclass(frozen=True, kw_only=True)
class _Sent:
    job: Job
    data: bytes
    """Of the picture's file."""


@dataclass(frozen=True, kw_only=True)
class _Reported:
    reached: Reached
    preview: bytes | None
    """Once."""


@dataclass(frozen=True, kw_only=True)
class _Returned:
    outcome: Outcome
    data: bytes | None
    """Of the result's file."""
    preview: bytes | None
    audit: tuple[bytes | None, bytes | None]
    """Of its report and its overlay."""


class _OpenElsewhere(OpenModel):
    def __call__(self, place: int) -> _Elsewhere:  # type: ignore[override]  # its tasks are others
        return _Elsewhere(super().__call__(place))


class _Elsewhere:
    """What a worker does with a picture that was sent: it restores it in a folder of its machine, which is removed."""

    def __init__(self, restoring: Restoring) -> None:
        self._restoring = restoring

    def __call__(self, sent: _Sent, report: Report) -> _Returned:
        try:
            with tempfile.TemporaryDirectory(prefix="supir-") as folder:
                return self._restored(sent, Path(folder), report)
        except OSError as error:
            return _Returned(outcome=failure(sent.job, error), data=None, preview=None, audit=(None, None))

    def _restored(self, sent: _Sent, folder: Path, report: Report) -> _Returned:
        job, told = sent.job, False
        source, target, preview = folder / "upload", folder / job.target.name, folder / "preview.png"
        source.write_bytes(sent.data)

        def on_work(reached: Reached) -> None:
            nonlocal told
            shown = None if told else _read(preview)
            told = told or shown is not None
            report(_Reported(reached=reached, preview=shown))

        outcome = self._restoring(replace(job, source=source, target=target, preview=preview, views=None), on_work)
        error = outcome.error and outcome.error.replace(str(source), str(job.source))
        outcome = replace(outcome, source=job.source, target=job.target, error=error)
        report_file, overlay = map(_read, audit_files(target))
        return _Returned(outcome=outcome, data=_read(target), preview=_read(preview), audit=(report_file, overlay))


def _keep(path: Path | None, data: bytes | None) -> None:
    if path is not None and data is not None:
        write_whole(path, data)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
