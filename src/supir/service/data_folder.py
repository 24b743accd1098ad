"""The service's folder: one process at a time works in it, and no file in it has a name that a user chose.

DATA/service.sqlite   the jobs (`supir.service.store`)
DATA/jobs/ID/         upload, preview.png, result.SUFFIX of one job, result.audit.* of its audit, and what people who
                      watch see; the ID is random
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path

from supir.errors import JobExpiredError, JobFailedError, JobNotFoundError, JobNotReadyError, ServiceError
from supir.files import alone, check_ours, flush, sentence
from supir.jobs.auditing import audit_files
from supir.jobs.job import BROWSERS_SHOW, Views
from supir.service.archive import Archive
from supir.service.stored_job import StoredJob

_DATABASE = "service.sqlite"
_LOCK, _JOBS = "service.lock", "jobs"


class Folder:
    """The folder, made if it is not there, and held until `close`.

    Args:
        path: where it is.
        keep_uploads: of jobs that are done, for as long as their results.
        keep: seconds for which results are kept.
        archive: where uploads and results are copied before a job is done; None copies nothing.

    Raises:
        OptionError: it holds something that no service made.
        SupirError: it cannot be used, or another service is at work in it.
    """

    def __init__(
        self, path: Path, *, keep_uploads: bool = False, keep: float = 24 * 3600.0,
        archive: Archive | None = None,
    ) -> None:  # fmt: skip
        self.archive = archive
        self.path, self.database, self._jobs = path, path / _DATABASE, path / _JOBS
        self.keep_uploads, self.keep = keep_uploads, keep
        try:
            path.mkdir(parents=True, exist_ok=True)
            check_ours(path, [_LOCK, _DATABASE], "service")
            self._held = ExitStack()
            self._held.enter_context(alone(path / _LOCK, "service"))
            self._jobs.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ServiceError(sentence(error, path, failed="cannot be used")) from error

    def close(self) -> None:
        """Let others in."""
        self._held.close()

    def begin(self) -> str:
        """A new random ID, with a folder of its own."""
        job = secrets.token_hex(16)
        (self._jobs / job).mkdir(mode=0o700)
        return job

    def upload(self, job: str) -> Path:
        """Of a job's picture, as it came."""
        return self._jobs / job / "upload"

    def preview(self, job: str) -> Path:
        """Of its clean preview."""
        return self._jobs / job / "preview.png"

    def result(self, job: str, suffix: str) -> Path:
        """Of its result."""
        return self._jobs / job / f"result{suffix}"

    def made(self, job: StoredJob) -> list[Path]:
        """What a job that is done has made: its result; report and overlay of its audit."""
        result = self.result(job.id, job.suffix)
        return [result, *(audit_files(result) if job.audit else ())]

    def views(self, job: str) -> Views:
        """Of what people who watch see."""
        folder = self._jobs / job
        return Views(
            input=folder / "input.png", step=folder / "step.jpg", result=folder / "shown.png",
            thumbnail=folder / "thumbnail.jpg",
        )  # fmt: skip

    def finished_result(self, job: StoredJob) -> Path:
        """The file of a job's result; it may be gone before it is opened, if the job expires or is deleted meanwhile.

        Raises:
            JobNotReadyError, JobFailedError, JobExpiredError: there is none.
        """
        if job.state == "done":
            return self.result(job.id, job.suffix)
        raise self._no_result(job)

    def finished_preview(self, job: StoredJob) -> Path:
        """The file of a job's clean preview, likewise."""
        if job.until == "preview":
            return self.finished_result(job)
        if job.state in ("running", "done") and (path := self.preview(job.id)).exists():
            return path
        raise self._no_result(job)

    def finished_audit(self, job: StoredJob) -> tuple[Path, Path]:
        """The files of an audit, its report and its overlay, likewise.

        Raises:
            JobNotFoundError: none was asked for.
        """
        if job.audit is None:
            raise JobNotFoundError("this job was asked for no audit; hand it in with audit=true")
        return audit_files(self.finished_result(job))

    def finished_view(self, job: StoredJob, name: str) -> Path:
        """The file of a field of `Views`, likewise; of a result that browsers show, itself."""
        path: Path = getattr(self.views(job.id), name)
        if path.exists():
            return path
        if name == "result" and job.suffix in BROWSERS_SHOW:
            return self.finished_result(job)
        if job.state == "done":
            raise JobExpiredError(f"of this job {name} is not kept")
        raise self._no_result(job)

    def borrow(self, source: str) -> str:
        """A new job's ID, with the upload of an earlier job in its folder.

        Raises:
            JobExpiredError: that upload is not kept any more.
        """
        job = self.begin()
        try:
            os.link(self.upload(source), self.upload(job))
        except OSError:  # it is gone, or the disk knows no links
            try:
                shutil.copyfile(self.upload(source), self.upload(job))
            except OSError:
                self.remove(job)
                raise JobExpiredError("the photo of this job is not kept any more; send it again") from None
        return job

    def done(self, job: str) -> None:
        """Take away the upload of a job that is done, if it is not to be kept."""
        if not self.keep_uploads:
            self.upload(job).unlink(missing_ok=True)

    def tidy(self, job: str) -> None:
        """Take away what was made of a job that is to be begun anew: all but its upload."""
        with suppress(OSError):
            for path in (self._jobs / job).iterdir():
                if path.name != "upload":
                    path.unlink(missing_ok=True)

    def abandon(self, job: str) -> None:
        """Take away the upload of a job that a worker is still at, so that no process begins it again."""
        with suppress(OSError):
            self.upload(job).unlink(missing_ok=True)

    def kept(self) -> dict[str, bool]:
        """Every job that has a folder, and whether its upload is in it."""
        return {folder.name: (folder / "upload").exists() for folder in self._jobs.iterdir()}

    def remove(self, job: str) -> None:
        """Take away every file of a job, half-written ones too."""
        shutil.rmtree(self._jobs / job, ignore_errors=True)

    def forget(self, job: str) -> None:
        """Take away the archive's copies of a job that is deleted.

        Raises:
            ServiceError: the archive refuses; the job is not deleted.
        """
        if self.archive is not None:
            try:
                self.archive.forget(job)
            except OSError as error:
                raise ServiceError(f"not deleted: {error}") from error

    def sweep(self, active: Collection[str], done: Collection[str]) -> None:
        """Take away what an ended process left: half-written files, and those of jobs that do not need them any more.

        Args:
            active: jobs that keep their uploads alone.
            done: jobs that keep their previews and results.
        """
        for folder in filter(_is_of_a_job, self._jobs.iterdir()):
            if folder.name not in active and folder.name not in done:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for path in folder.iterdir():
                is_upload, is_done = path.name == "upload", folder.name in done
                unneeded = is_upload and not self.keep_uploads if is_done else not is_upload
                if unneeded or path.name.startswith("."):
                    path.unlink(missing_ok=True)

    def _no_result(self, job: StoredJob) -> JobNotReadyError | JobFailedError | JobExpiredError:
        if job.state == "failed":
            return JobFailedError(f"the job failed: {job.error}")
        if job.state == "cancelled":
            return JobFailedError("the job was cancelled")
        if job.state == "expired":
            return JobExpiredError(f"the result was kept for {self.keep / 3600:g} hours and is gone; submit it again")
        return JobNotReadyError(f"the job is {job.state}; wait for its events", 1)


def _is_of_a_job(folder: Path) -> bool:
    return re.fullmatch(r"[0-9a-f]{32}", folder.name) is not None and folder.is_dir() and not folder.is_symlink()


def safe(path: Path) -> None:
    """Wait until a file that was written, and its name, are on the disk.

    Raises:
        OSError: it is not there, or the disk does not take it.
    """
    for each in (path, path.parent):
        flush(each)
