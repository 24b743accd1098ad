"""What is asked and answered: the models of JSON, of which the OpenAPI schema is made; pictures and events."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal

from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from supir.options import RestoreOptions
from supir.options.audit import AuditOptions
from supir.service.engine import Progress
from supir.service.stored_job import StoredJob
from supir.service.validation import OF_PRESET, SubmissionOptions

_CHUNK = 1 << 18

State = Literal["queued", "running", "done", "failed", "cancelled", "expired"]


class AuditView(BaseModel):
    """What the audit of a result came to, in short."""

    kept: float = Field(description="share of the picture, from 0 to 1")
    reconstructed: float
    invented: float
    guarantee: str = Field(description="holds, or why nothing is promised of these shares")
    past_limits: list[str] = Field(description="a clause for each limit of the request that the result is past")
    returned: Literal["blend", "preview"] | None = Field(
        None, description="what the result is in place of what was restored, past a limit; null: that itself"
    )
    says: str = Field(description="the report's sentence")


class JobView(BaseModel):
    """A job."""

    id: str
    state: State
    name: str = Field(description="of the picture, as it was sent")
    width: int = Field(description="of the picture, in pixels")
    height: int
    format: str = Field(description="suffix of the result")
    preset: str | None = Field(None, description="whose values the options are where nobody has set them")
    options: dict[str, Any] = Field(description="every option, with what the preset gave")
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    expires: datetime | None = Field(None, description="when the files of a job that is done will be removed")
    position: int | None = Field(None, description="queued: how many jobs are before it")
    waits_for: str | None = Field(None, description="queued: what it waits for beside those before it")
    step: int | None = Field(None, description="running: steps done")
    num_steps: int = Field(description="steps in all")
    progress: float | None = Field(None, description="running: how much of the work is done, from 0 to 1, in time")
    seconds_left: float | None = Field(None, description="running: for how long it will go on; null: not known yet")
    audit_progress: float | None = Field(
        None, description="running: of the audit that follows the restoration, what is done, from 0 to 1"
    )
    preview: bool = Field(False, description="the clean preview can be fetched")
    error: str | None = Field(None, description="failed: why")
    warnings: list[str] = Field(
        default_factory=list, description="in the answer to a submission: options that were set to no effect"
    )
    sha256: str | None = Field(None, description="done: of the result")
    until: Literal["result", "preview"] = Field("result", description="what is made")
    crop: list[int] | None = Field(
        None, description="of a preview alone: left, top, width, height of the part of the photo that it shows"
    )
    source: str = Field(description="the job with which the picture was sent; the same for all that were made of it")
    caption: str | None = Field(None, description="what a captioner said of the picture, where one was asked")
    audit_options: dict[str, Any] | None = Field(None, description="how the result is audited; null: it is not")
    audit: AuditView | None = Field(None, description="done: what its audit came to")


class JobPage(BaseModel):
    """Some jobs, the newest first."""

    jobs: list[JobView]
    next: str | None = Field(None, description="give this as `before` for the page that follows; none: there is none")


class OptionsView(BaseModel):
    """What may be set, and what it is when it is not set."""

    model: str
    default_preset: str
    presets: dict[str, dict[str, Any]] = Field(description="every option's value by preset, for this model")
    trade_offs: dict[str, str] = Field(description="what each preset is for, in the order to offer them in")
    same_presets: dict[str, str] = Field(description="presets that make the same as another with this model, by name")
    own_presets: list[str] = Field(description="presets for which this model has numbers of its own")
    unused: dict[str, str] = Field(
        description="options that change next to nothing with this model or service, each with why"
    )
    goes_with: dict[str, str] = Field(description="options that unset another of the preset when set without it")
    words: dict[str, str] = Field(description="the quality words that stand for unset ones")
    captioner: str | None = Field(None, description="who describes pictures that are sent for their preview; or nobody")
    formats: list[str]
    options: dict[str, Any] = Field(description="a JSON schema for each option")
    audit_options: dict[str, Any] = Field(
        description="a JSON schema for each option of an audit, with `audit` that asks for it"
    )
    audit_defaults: dict[str, Any] = Field(description="their values where nobody has set them")
    loras: list[str] = Field(description="what the option lora may name")
    first_models: list[str] = Field(description="what the option first may name")
    limits: dict[str, Any] = Field(description="of this key")
    crop_pixels: int = Field(description="that the part may have that `crop` names, at the size that is worked on")
    address: str | None = Field(None, description="where other devices of the network find the page, without the key")


class PlanView(BaseModel):
    """What restoring a picture will come to."""

    width: int = Field(description="of the result, in pixels")
    height: int
    working_width: int = Field(description="of what the networks see, in pixels")
    working_height: int
    seconds: float | None = Field(description="at work; null where nothing tells how fast it goes")
    measured: bool = Field(description="the time is from pictures that were restored here")
    refused: str | None = Field(description="why this key may not ask for it")


class HealthView(BaseModel):
    """How the service is."""

    live: bool = True
    ready: bool = Field(description="a worker has opened the weights, and new jobs are taken")
    reason: str | None = Field(None, description="why it is not ready")
    workers_ready: int
    workers: int
    version: str


class ErrorView(BaseModel):
    """What was wrong."""

    error: str = Field(description="the name of the class in supir.errors")
    detail: str = Field(description="what came, what is allowed, what to do")


def job_view(job: StoredJob, progress: Progress, keep: float) -> JobView:
    """A job as clients see it."""
    expires = job.finished + keep if job.state == "done" and job.finished is not None else None
    return JobView(
        id=job.id, state=job.state, name=job.name, width=job.width, height=job.height, format=job.suffix,  # type: ignore[arg-type]
        options=dataclasses.asdict(job.options), created=_time(job.created), started=_time(job.started),
        finished=_time(job.finished), expires=_time(expires), position=progress.position,
        waits_for=progress.waits_for, step=progress.step,
        num_steps=job.options.num_steps, progress=progress.share, seconds_left=progress.seconds_left,
        preview=progress.preview, error=job.error, sha256=job.sha256,
        until=job.until, source=job.source, caption=job.caption, preset=job.preset,  # type: ignore[arg-type]
        audit_progress=progress.audited, audit_options=dataclasses.asdict(job.audit) if job.audit else None,
        audit=AuditView(**job.audited) if job.audited else None, crop=[*job.crop] if job.crop else None,
    )  # fmt: skip


def _time(seconds: float | None) -> Any:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def chosen_schema() -> dict[str, Any]:
    """Preset, options, audit as one JSON object. None has a default: unset, or null, is the preset's value."""
    own = SubmissionOptions.schemas()
    given = {name: own[name] for name in OF_PRESET} | RestoreOptions.schemas() | AuditOptions.schemas()
    properties = {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in given.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def form_schema() -> dict[str, Any]:
    """The fields of a submission: the picture, and how to restore it, as one JSON object or field by field."""
    picture = "the picture: JPEG, PNG, WebP or TIFF, by its content"
    about = "preset and options as one JSON object, in place of the fields below; null: unset"
    return {
        "type": "object",
        "required": ["file"],
        "additionalProperties": False,
        "properties": {
            "file": {"type": "string", "format": "binary", "description": picture},
            "options": chosen_schema() | {"description": about},
            **SubmissionOptions.schemas(),
            **RestoreOptions.schemas(),
            **AuditOptions.schemas(),
        },
    }


class EventStream(StreamingResponse):
    """Server-sent events; a client that leaves ends what makes them.

    Args:
        texts: the events.
    """

    def __init__(self, texts: AsyncGenerator[str, None]) -> None:
        super().__init__(texts, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._texts = texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As in starlette."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._texts.aclose()


class OpenFile(StreamingResponse):
    """A file that is open already, so that it is whole even if it is removed meanwhile; closed at the end.

    Args:
        stream: the file.
        media_type: what it is.
        headers: beside its length.
    """

    def __init__(self, stream: BinaryIO, media_type: str, headers: dict[str, str]) -> None:
        self._stream = stream
        length = {"Content-Length": str(stream.seek(0, 2))}
        stream.seek(0)
        super().__init__(self._chunks(), media_type=media_type, headers=headers | length)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As in starlette."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._stream.read(_CHUNK):
            yield chunk
