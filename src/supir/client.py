"""A client of the service (`supir serve`): light, typed, and with the errors that the library itself raises.

with Client("https://photos.example", key="supir_...") as client:
    job = client.submit("photo.jpg", scale=4)
    client.save(client.wait(job), "photo.restored.jpg")
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from supir import errors
from supir.errors import (
    BusyError,
    JobFailedError,
    JobNotFoundError,
    MissingExtraError,
    ServiceError,
    StorageError,
    SupirError,
)
from supir.files import write_whole
from supir.retry import retry

try:
    import httpx2
except ImportError as error:
    raise MissingExtraError("httpx2", "client", "the service's client") from error

ACTIVE = ("queued", "running")
"""The states that a job can still leave by itself."""
_CONNECT, _ANSWER = 10.0, 60.0
_AGAIN = 1.0
"""Seconds until a stream of events that broke off is asked for again."""
_MAX_BROKEN = 30
"""Times that it may break off without a word before the service counts as gone."""


@dataclass(frozen=True, kw_only=True)
class RemoteJob:
    """A job as the service told of it; `Client.get` asks again."""

    id: str
    state: str
    """queued, running, done, failed, cancelled or expired."""
    name: str
    position: int | None
    """In the queue: how many jobs are before it."""
    step: int | None
    num_steps: int
    progress: float | None
    """At work: how much of the work is done, from 0 to 1, in time."""
    seconds_left: float | None
    """At work: for how long it will go on; None where that is not known yet."""
    preview: bool
    """The clean preview can be fetched."""
    error: str | None
    """Of a failed job, the sentence."""
    sha256: str | None
    """Of the result."""
    expires: datetime | None
    """When the result will be removed."""
    audit: dict[str, Any] | None
    """Of a result that was audited: the shares that were ``kept``, ``reconstructed`` and ``invented``, the
    ``guarantee``, the limits that it is past (``past_limits``), what was ``returned`` in its place, a sentence."""
    told: dict[str, Any] = field(repr=False)
    """All that the service said."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a job."""

    kind: str
    """A state, ``preview``, ``step``, ``progress`` or ``deleted``."""
    job: RemoteJob | None
    """As it was then; None when it was deleted."""


class Client:
    """A connection to one service.

    Args:
        url: of the service.
        key: as `supir serve --new-key` printed it; None for a service without keys.
        timeout: seconds until an answer must come. A stream of events may be silent for twice as long as the service
            lets it be.
        patience: seconds for which a request that the service is too busy for, or has no room for, is repeated, as it
            asks.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout: float = _ANSWER, patience: float = 0.0) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=httpx2.Timeout(timeout, connect=_CONNECT))
        self._patience = patience

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def submit(
        self,
        picture: Path | str | bytes,
        *,
        name: str | None = None,
        format: str | None = None,
        until: str = "result",
        crop: tuple[int, int, int, int] | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> RemoteJob:
        """Hand in a picture.

        Args:
            picture: a file, or its bytes.
            name: what it is called; unset: the file's name.
            format: of the result: jpeg, png, webp or tiff; unset: the picture's own.
            until: ``preview`` makes the clean preview alone, a PNG, before any other job; it is then the result.
            crop: of such a preview, the part that it shows, as large as it is in the result: left, top, width and
                height in pixels of the upright photo.
            idempotency_key: a random one, unless given: a request that is repeated makes one job.
            options: ``preset`` and fields of ``RestoreOptions``; ``audit=True`` and those of ``AuditOptions``.

        Raises:
            OptionError, ImageReadError, ImageTooLargeError, UploadTooLargeError: the service refuses these.
            BusyError: it has no room, longer than `patience`.
            ServiceError: anything else that a service may say, or it cannot be reached.
        """
        data = picture if isinstance(picture, bytes) else _read(Path(picture))
        shown = name or ("picture" if isinstance(picture, bytes) else Path(picture).name)
        form = {"options": json.dumps(options)} | _own(format, until, crop)
        files = {"file": (shown, data, "application/octet-stream")}
        return _job(self._ask("POST", "/v1/jobs", data=form, files=files, headers=_once(idempotency_key)).json())

    def again(
        self,
        job: RemoteJob | str,
        *,
        format: str | None = None,
        until: str = "result",
        crop: tuple[int, int, int, int] | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> RemoteJob:
        """The picture of an earlier job once more, with other options, without sending it again.

        Only a service that keeps uploads does this: that of `supir web`.

        Args:
            job: the earlier one.
            format: as in `submit`, and so are `until`, `crop` and `idempotency_key`.
            options: all that shall differ from the preset, not from the earlier job.

        Raises:
            JobNotFoundError: there is none, or no upload of it is kept.
            OptionError, ImageTooLargeError, BusyError, ServiceError: as in `submit`.
        """
        asked = _own(format, until, crop)
        answer = self._ask("POST", f"{_path(job)}/again", json=options, params=asked, headers=_once(idempotency_key))
        return _job(answer.json())

    def get(self, job: RemoteJob | str) -> RemoteJob:
        """A job as it is now.

        Raises:
            JobNotFoundError: there is none, or it is not yours.
        """
        return _job(self._ask("GET", _path(job)).json())

    def jobs(self, *, state: str | None = None) -> Iterator[RemoteJob]:
        """Your jobs, the newest first; all of them, page after page."""
        asked: dict[str, str] = {} if state is None else {"state": state}
        while True:
            page = self._ask("GET", "/v1/jobs", params=asked).json()
            yield from map(_job, page["jobs"])
            if page["next"] is None:
                return
            asked["before"] = page["next"]

    def events(self, job: RemoteJob | str) -> Iterator[Event]:
        """What happens to a job, from its present state on, until it has ended. A broken connection is made again.

        Raises:
            JobNotFoundError: there is none.
            ServiceError: the service cannot be reached.
        """
        broken = 0
        while True:
            try:
                with self._http.stream("GET", f"{_path(job)}/events") as answer:
                    _check(answer)
                    for event in _events(answer.iter_lines()):
                        broken = 0
                        yield event
                        if event.job is None or event.job.state not in ACTIVE:
                            return
            except httpx2.TransportError as error:
                if broken >= _MAX_BROKEN:
                    raise _gone(error) from error
            broken += 1
            if broken > _MAX_BROKEN:
                raise ServiceError("the service ends its events at once, again and again; look at its log")
            time.sleep(_AGAIN)

    def wait(self, job: RemoteJob | str) -> RemoteJob:
        """Wait until a job has ended; the job that is done.

        Raises:
            JobFailedError: it failed, was cancelled or expired; the message says why.
            JobNotFoundError: it was deleted.
        """
        for event in self.events(job):
            if event.job is None:
                raise JobNotFoundError("the job was deleted")
            if event.job.state == "done":
                return self.get(event.job)
            if event.job.state not in ACTIVE:
                raise JobFailedError(event.job.error or f"the job is {event.job.state}")
        raise JobFailedError("the events ended before the job")

    def result(self, job: RemoteJob | str) -> bytes:
        """The restored picture, as a file's bytes.

        Raises:
            JobNotReadyError, JobFailedError, JobExpiredError: there is none, not yet or any more.
        """
        return self._ask("GET", f"{_path(job)}/result").content

    def preview(self, job: RemoteJob | str) -> bytes:
        """The clean preview, a PNG; likewise."""
        return self._ask("GET", f"{_path(job)}/preview").content

    def audit(self, job: RemoteJob | str) -> dict[str, Any]:
        """The report of an audit; likewise.

        Raises:
            JobNotFoundError: the job was not asked for one.
        """
        return dict(self._ask("GET", f"{_path(job)}/audit").json())

    def overlay(self, job: RemoteJob | str) -> bytes:
        """The picture of an audit, a PNG: what was kept, reconstructed and invented; likewise."""
        return self._ask("GET", f"{_path(job)}/audit/overlay").content

    def save(self, job: RemoteJob | str, path: Path | str) -> Path:
        """Write the result to a file, whole or not at all; a file of that name is replaced."""
        write_whole(path, self.result(job))
        return Path(path)

    def cancel(self, job: RemoteJob | str) -> RemoteJob:
        """Stop a job; one that has ended stays as it is."""
        return _job(self._ask("POST", f"{_path(job)}/cancel").json())

    def delete(self, job: RemoteJob | str) -> None:
        """Have a job forgotten and its files removed."""
        self._ask("DELETE", _path(job))

    def options(self) -> dict[str, Any]:
        """What may be set here, with ranges, presets and this key's limits."""
        return dict(self._ask("GET", "/v1/options").json())

    def _ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        end = time.monotonic() + self._patience

        def ask() -> httpx2.Response:
            try:
                answer = self._http.request(method, path, **more)
            except httpx2.TransportError as error:
                raise _gone(error) from error
            _check(answer)
            return answer

        def wait(error: SupirError, _: int) -> float | None:
            seconds = error.retry_after or 1 if isinstance(error, (BusyError, StorageError)) else math.inf
            return seconds if time.monotonic() + seconds <= end else None

        return retry(ask, wait, time.sleep)


def _check(answer: httpx2.Response) -> None:
    """Raise the error that an answer tells of: by its name, when it is one of supir's."""
    if answer.is_success:
        return
    answer.read()
    try:
        said = answer.json()
        name, detail = str(said["error"]), str(said["detail"])
    except (ValueError, KeyError, TypeError):
        name, detail = "ServiceError", f"{answer.url} answered {answer.status_code}; is it a service of supir?"
    retry = answer.headers.get("Retry-After", "")
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, SupirError)) or kind is MissingExtraError:
        kind = ServiceError
    if issubclass(kind, ServiceError):
        raise kind(detail, int(retry) if retry.isdecimal() else None)
    raise kind(detail)


def _events(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events, as far as the service uses them: one line of kind, one of data, an empty one."""
    kind = ""
    for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            told = json.loads(line.removeprefix("data: "))
            yield Event(kind=kind, job=_job(told) if told else None)


def _job(told: dict[str, Any]) -> RemoteJob:
    known = {each.name: told[each.name] for each in fields(RemoteJob) if each.name not in ("expires", "audit", "told")}
    known["audit"] = told.get("audit")  # of which an older service does not tell
    expires = told.get("expires")
    return RemoteJob(**known, expires=datetime.fromisoformat(expires) if expires else None, told=told)


def _path(job: RemoteJob | str) -> str:
    return f"/v1/jobs/{job if isinstance(job, str) else job.id}"


def _own(format: str | None, until: str, crop: tuple[int, int, int, int] | None) -> dict[str, str]:
    """What a request says beside the options."""
    given = {"format": format, "until": until, "crop": crop and ",".join(map(str, crop))}
    return {name: value for name, value in given.items() if value is not None}


def _once(key: str | None) -> dict[str, str]:
    """The header by which a request that is repeated makes one job."""
    return {"Idempotency-Key": key or secrets.token_urlsafe(24)}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise errors.ImageReadError(f"{path}: cannot be read: {error.strerror or error}", path) from error


def _gone(error: httpx2.TransportError) -> ServiceError:
    return ServiceError(f"the service cannot be reached, or closed the connection: {type(error).__name__}: {error}")
