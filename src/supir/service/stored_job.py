"""A job as it is handed in, and as it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supir.options import RestoreOptions
from supir.options.audit import AuditOptions
from supir.options.crop import Crop

STATES = ("queued", "running", "done", "failed", "cancelled", "expired")
"""queued -> running -> done -> expired; running -> failed, or queued again; queued, running -> cancelled."""
ACTIVE = ("queued", "running")
"""The states that a job can still leave by itself."""
UNTIL = ("result", "preview")
"""What a job can be asked to make; with preview, the clean preview is its result, and nothing is sampled."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A picture that lies in the service's folder, checked, with what is to be done with it."""

    id: str
    """Random; the names of the job's files are made of it alone."""
    client: str
    """The name of the key it came with."""
    name: str
    """What the user calls the picture; text for people, never part of a path."""
    options: RestoreOptions
    suffix: str
    """Of the result, as .png."""
    width: int
    height: int
    """Of the upload, in pixels."""
    digest: str
    """SHA-256 of everything that was asked for: a repeated request is known by it."""
    idempotency_key: str | None = None
    until: str = "result"
    """One of `UNTIL`."""
    source: str | None = None
    """The job with which the picture was sent, the same for all that are made of one upload; unset: this one."""
    caption: str | None = None
    """What a captioner said of the picture, where one was asked."""
    captioner: str | None = None
    """Its name."""
    preset: str | None = None
    """Whose values the options are where nobody has set them."""
    audit: AuditOptions | None = None
    """How the result is audited; unset: it is not."""
    crop: Crop | None = None
    """Of a preview alone: the part of the photo that it shows; unset: all of it."""


@dataclass(frozen=True, kw_only=True)
class StoredJob(Submission):
    """A row of the database. Times are seconds since 1970, None where that has not happened."""

    number: int
    """Grows with every job."""
    source: str
    state: str
    created: float
    started: float | None
    finished: float | None
    tries: int
    """How often it was begun and its end not seen: a worker, or the service, died at it."""
    error: str | None
    """The sentence for the user, of a job that failed."""
    sha256: str | None
    """Of the result."""
    audited: Mapping[str, Any] | None
    """What its audit came to, as `supir.jobs.Outcome` has it."""
