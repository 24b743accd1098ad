"""What was made of jobs, as files to be answered with; or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from supir.errors import JobExpiredError, JobFailedError, JobNotReadyError
from supir.jobs.job import BROWSERS_SHOW
from supir.service.data_folder import Folder
from supir.service.stored_job import StoredJob


class Artifacts:
    """The files of jobs. Any thread may ask.

    Args:
        folder: where they are.
        keep: seconds for which results are kept.
        has_preview: whether the clean preview of a job is there.
    """

    def __init__(self, folder: Folder, keep: float, has_preview: Callable[[StoredJob], bool]) -> None:
        self._folder, self._keep, self._has_preview = folder, keep, has_preview

    def result(self, job: StoredJob) -> Path:
        """The file of a job's result; it may be gone before it is opened, if the job expires or is deleted meanwhile.

        Raises:
            JobNotReadyError, JobFailedError, JobExpiredError: there is none.
        """
        if job.state == "done":
            return self._folder.result(job.id, job.suffix)
        raise self._no_result(job)

    def preview(self, job: StoredJob) -> Path:
        """The file of a job's clean preview, likewise."""
        if job.until == "preview":
            return self.result(job)
        if self._has_preview(job):
            return self._folder.preview(job.id)
        raise self._no_result(job)

    def view(self, job: StoredJob, name: str) -> Path:
        """The file of what people who watch see: a field of `Views`. Of a result that browsers show, itself.

        Raises:
            JobNotReadyError, JobFailedError, JobExpiredError: there is none.
        """
        path: Path = getattr(self._folder.views(job.id), name)
        if path.exists():
            return path
        if name == "result" and job.suffix in BROWSERS_SHOW:
            return self.result(job)
        if job.state == "done":
            raise JobExpiredError(f"of this job {name} is not kept")
        raise self._no_result(job)

    def borrow(self, source: StoredJob) -> str:
        """A new job's ID, with the upload of an earlier job in its folder.

        Raises:
            JobExpiredError: that upload is not kept any more.
        """
        job = self._folder.begin()
        try:
            self._folder.borrow(job, source.id)
        except OSError:
            self._folder.remove(job)
            raise JobExpiredError("the photo of this job is not kept any more; send it again") from None
        return job

    def _no_result(self, job: StoredJob) -> JobNotReadyError | JobFailedError | JobExpiredError:
        if job.state == "failed":
            return JobFailedError(f"the job failed: {job.error}")
        if job.state == "cancelled":
            return JobFailedError("the job was cancelled")
        if job.state == "expired":
            return JobExpiredError(f"the result was kept for {self._keep / 3600:g} hours and is gone; submit it again")
        return JobNotReadyError(f"the job is {job.state}; wait for its events", 1)
