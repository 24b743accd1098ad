"""What an answer of a worker means for the job that it had."""

from __future__ import annotations

import logging

from supir.files import lacks_room
from supir.jobs.job import Outcome
from supir.service.data_folder import Folder, safe
from supir.service.store import MAX_TRIES
from supir.service.worker_threads import ActiveJob

_NO_ROOM = f"was begun {MAX_TRIES} times, and each time the service's disk had no room for it; try again later"
_log = logging.getLogger("supir.service")


def verdict(folder: Folder, active: ActiveJob, outcome: Outcome | None) -> tuple[str, str | None, str | None]:
    """(state, sentence, SHA-256 of the result), where the outcome is None of a job at which its worker died.

    The state is ``left`` where the job was cancelled or deleted meanwhile.

    A result is on the disk before its job is done. A job for which there was no room on a disk is queued again; the
    sentence then says what it fails with when that was too often.
    """
    job = active.job
    if outcome is not None and outcome.error is None:
        try:
            safe(folder.result(job.id, job.suffix))
        except OSError as error:
            if lacks_room(error):
                return "queued", _NO_ROOM, None
            return "failed", f"{job.name}: the result cannot be stored: {error.strerror}", None
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
