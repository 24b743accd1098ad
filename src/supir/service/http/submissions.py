"""A picture handed in: with its bytes, or once more as it was sent before; checked, then queued."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated

from fastapi import Header, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.concurrency import run_in_threadpool
from pydantic import WithJsonSchema

from supir.errors import SupirError
from supir.options import RestoreOptions
from supir.service.engine import Engine
from supir.service.http.estimates import Estimates
from supir.service.http.responses import job_view
from supir.service.http.uploads import drop_rest, read_form, read_json, sha256_of
from supir.service.limits import Client
from supir.service.stored_job import StoredJob, Submission
from supir.service.validation import (
    SubmissionOptions,
    check_auditing,
    checked_crop,
    checked_picture,
    chosen_options,
    digest_of,
    shown_name,
    suffix_of,
)

_log = logging.getLogger("supir.service")

JobID = Annotated[str, PathParameter(description="of the job, as its submission answered", max_length=64)]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="the same key, sent again with the same picture and options, gives the same job",
        pattern=r"^[!-~]{1,200}$",
    ),
]
Reuse = Annotated[bool, Query(description="answer with a job that was asked for the same, if one is done or will be")]
_FIELDS = SubmissionOptions.fields()
Format = Annotated[str | None, Query(), WithJsonSchema(_FIELDS["format"].schema())]
Until = Annotated[str | None, Query(), WithJsonSchema(_FIELDS["until"].schema())]
Part = Annotated[str | None, Query(), WithJsonSchema(_FIELDS["crop"].schema())]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What is to be made of a picture, and under which key."""

    options: RestoreOptions
    own: SubmissionOptions
    key: str | None
    idle: list[str]
    """Sentences about options that have no effect."""


class Submitting:
    """The two routes by which jobs come in.

    Args:
        engine: queues.
        log_details: file names and options go into the log as well.
        estimates: tell how long a clean preview takes.
    """

    def __init__(self, engine: Engine, log_details: bool, estimates: Estimates) -> None:
        self._engine, self._log_details, self._estimates = engine, log_details, estimates

    async def submit(self, request: Request, reuse: Reuse = False, idempotency_key: Key = None) -> Response:
        """Queue a picture. Its bytes and header are checked while it comes; it is decoded by a worker, later."""
        client: Client = request.state.client
        await self._check_room(request, idempotency_key)
        with self._engine.room.minded():
            job = await run_in_threadpool(self._engine.folder.begin)
            try:
                form = await read_form(request, int(client.limits.megabytes * 1e6), self._engine.folder.upload(job))
                options, own, idle = chosen_options(form.fields, self._engine.model)
                asked = _Asked(options=options, own=own, key=idempotency_key, idle=idle)
                new = await run_in_threadpool(self._checked, job, shown_name(form.name), asked, client)
            except BaseException:
                await run_in_threadpool(self._engine.folder.remove, job)
                raise
        return await self._queue(request, new, asked.idle, "jobs", reuse)

    async def again(
        self, request: Request, job: JobID, format: Format = None, until: Until = None, crop: Part = None,
        reuse: Reuse = False, idempotency_key: Key = None,
    ) -> Response:  # fmt: skip
        """Queue the picture of an earlier job once more, whose upload is still kept; options that are not given are the
        preset's. What a captioner said of it is in the record of the result.
        """
        client: Client = request.state.client
        await self._check_room(request, idempotency_key)
        text = await read_json(request)
        given = {"options": text, "format": format or "", "until": until or "", "crop": crop or ""}
        options, own, idle = chosen_options(given, self._engine.model)
        asked = _Asked(options=options, own=own, key=idempotency_key, idle=idle)
        earlier, _ = await run_in_threadpool(self._engine.look, job, client)
        with self._engine.room.minded():
            new = await run_in_threadpool(self._borrowed, earlier, asked, client)
        return await self._queue(request, new, asked.idle, "../../jobs", reuse)

    async def _check_room(self, request: Request, key: str | None) -> None:
        try:
            await run_in_threadpool(self._engine.check_room, request.state.client, key)
        except SupirError:
            await drop_rest(request.stream())
            raise

    def _borrowed(self, earlier: StoredJob, asked: _Asked, client: Client) -> Submission:
        job = self._engine.folder.borrow(earlier.id)
        try:
            return self._checked(job, earlier.name, asked, client, earlier)
        except BaseException:
            self._engine.folder.remove(job)
            raise

    def _checked(
        self, job: str, name: str, asked: _Asked, client: Client, earlier: StoredJob | None = None
    ) -> Submission:
        """The submission of an upload that lies in the folder."""
        upload, alone = self._engine.folder.upload(job), asked.own.until == "preview"
        side, seconds = asked.own.preview_side if alone else None, asked.own.preview_seconds if alone else None
        kind, width, height, options = checked_picture(upload, name, asked.options, client.limits, side, asked.own)
        if seconds is not None:
            options = options.replace(scale=self._estimates.preview_scale(width, height, options, seconds))
        lowered = options.scale != asked.options.scale
        if lowered and not alone:
            told = f"scale {options.scale:g} is taken, not {asked.options.scale:g}, so that the result is not too large"
            asked.idle.append(told)
        auditing = asked.own.auditing
        if auditing is not None:
            check_auditing(auditing, width, height, options.scale)
        crop = checked_crop(asked.own, upload, options)
        suffix = suffix_of(asked.own.format, kind, asked.own.until)
        words = {} if earlier is None else {name: getattr(earlier, name) for name in ("source", "caption", "captioner")}
        # A preview that was made smaller is the same whatever it was to be at first, and however fast it goes now.
        same = options.replace(scale=1.0) if lowered and alone else options
        digest = digest_of(sha256_of(upload), same, suffix, asked.own.until, auditing, crop)
        return Submission(
            id=job, client=client.name, name=name, options=options, suffix=suffix, width=width, height=height,
            digest=digest, idempotency_key=asked.key, until=asked.own.until, preset=asked.own.preset, audit=auditing,
            crop=crop, **words,
        )  # fmt: skip

    async def _queue(self, request: Request, new: Submission, idle: list[str], place: str, reuse: bool) -> Response:
        """Queue it, or find the same; ``place`` is where jobs are, relative to the request, as a proxy may have put a
        path before it.
        """
        client: Client = request.state.client
        if reuse and (same := await run_in_threadpool(self._engine.store.same, client.name, new.digest)) is not None:
            await run_in_threadpool(self._engine.folder.remove, new.id)
            request.state.told["job"] = same.id
            return await self._told(same.id, client, idle, place, 200)
        stored, is_new = await run_in_threadpool(self._engine.submit, new, client)
        request.state.told["job"] = stored.id
        if self._log_details:
            _log.info("asked for", extra={"job": stored.id, "name_given": new.name, "options": vars(new.options)})
        return await self._told(stored.id, client, idle, place, 202 if is_new else 200)

    async def _told(self, job: str, client: Client, idle: list[str], place: str, status: int) -> Response:
        found = await run_in_threadpool(self._engine.look, job, client)
        text = job_view(*found, self._engine.keep).model_copy(update={"warnings": idle}).model_dump_json()
        return Response(text, status, {"Location": f"{place}/{job}"}, "application/json")
