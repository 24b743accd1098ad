"""The routes: each finds out who asks, and hands on to the engine."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from supir import __version__
from supir.apps.serving.events import Hub, changes
from supir.apps.serving.metrics import Metrics
from supir.apps.serving.schema import form_schema, option_schemas
from supir.apps.serving.uploads import drop_rest, read_form, write_upload
from supir.apps.serving.views import ErrorView, HealthView, JobPage, JobView, OptionsView, State, job_view
from supir.errors import JobExpiredError, KeyRefusedError, SupirError
from supir.options import DEFAULT_PRESET, PRESETS
from supir.service.engine import Engine
from supir.service.jobs import StoredJob, Submission
from supir.service.limits import LOCAL, Client, Limits, Pace, who
from supir.service.receiving import FORMATS, checked_picture, chosen_options, digest_of, shown_name, suffix_of

__all__ = ["Routes"]

_CHUNK = 1 << 18
_IMAGES = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".tif": "image/tiff"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
_BEARER = HTTPBearer(auto_error=False, description="a key that `supir serve --new-key` printed")
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


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorView} for status in (401, 403, 422, 429, 500, *statuses)}


class Routes:
    """What the routes share, and the routes.

    Args:
        engine: does it all.
        metrics: counts.
        clients: who may ask; None lets everybody ask, as one client.
        limits: of that one.
        log_details: file names and options go into the log as well.
    """

    def __init__(
        self, engine: Engine, metrics: Metrics, clients: list[Client] | None, limits: Limits, log_details: bool
    ) -> None:
        self._engine, self._metrics, self._clients = engine, metrics, clients
        self._everybody, self._pace, self._log_details = Client(name=LOCAL, limits=limits), Pace(), log_details
        self.hub: Hub | None = None
        """Made when the event loop runs."""

    def router(self) -> APIRouter:
        """All of them."""

        async def anybody(request: Request) -> None:
            self._admit(request, self._everybody)

        async def known(
            request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
        ) -> None:
            if given is None:
                raise KeyRefusedError("a key is needed here; send yours as: Authorization: Bearer KEY")
            self._admit(request, who(self._clients or [], given.credentials))

        def add(
            path: str, method: str, function: Any, status: int = 200, errors: tuple[int, ...] = (), **more: Any
        ) -> None:
            more["responses"] = {**_errors(*errors), **more.get("responses", {})}
            router.add_api_route(path, function, methods=[method], status_code=status, **more)

        router = APIRouter()
        asking: dict[str, Any] = {"dependencies": [Depends(anybody if self._clients is None else known)]}
        form = {"required": True, "content": {"multipart/form-data": {"schema": form_schema()}}}
        submitted = {200: {"model": JobView, "description": "the job of an earlier request with this Idempotency-Key"}}
        pictures = {200: {"content": dict.fromkeys(_IMAGES.values(), _BINARY), "description": "the picture"}}
        events = {200: {"content": {"text/event-stream": {"schema": _EVENT}}, "description": "the events"}}
        job = "/v1/jobs/{job}"
        add("/v1/jobs", "POST", self.submit, 202, (413, 415, 503), response_model=JobView, responses=submitted,
            openapi_extra={"requestBody": form}, **asking)  # fmt: skip
        add("/v1/jobs", "GET", self.list, errors=(404,), response_model=JobPage, **asking)
        add(job, "GET", self.get, errors=(404,), response_model=JobView, **asking)
        add(job, "DELETE", self.delete, 204, (404,), **asking)
        add(f"{job}/cancel", "POST", self.cancel, errors=(404,), response_model=JobView, **asking)
        add(f"{job}/events", "GET", self.events, errors=(404,), responses=events, response_class=StreamingResponse,
            **asking)  # fmt: skip
        for name, function in (("result", self.result), ("preview", self.preview)):
            add(f"{job}/{name}", "GET", function, errors=(404, 409, 410), responses=pictures,
                response_class=StreamingResponse, **asking)  # fmt: skip
        add("/v1/options", "GET", self.options, response_model=OptionsView, **asking)
        add("/metrics", "GET", self.metrics, response_class=Response, **asking,
            responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})  # fmt: skip
        router.add_api_route("/health", self.health, methods=["GET"], response_model=HealthView)
        router.add_api_route("/health/ready", self.ready, methods=["GET"], response_model=HealthView,
                             responses={503: {"model": HealthView}})  # fmt: skip
        return router

    async def submit(self, request: Request, idempotency_key: Key = None) -> Response:
        """Queue a picture. Its bytes and header are checked while it comes; it is decoded by a worker, later."""
        client: Client = request.state.client
        try:
            await run_in_threadpool(self._engine.check_room, client, idempotency_key)
        except SupirError:
            await drop_rest(request.stream())
            raise
        form = await read_form(request, int(client.limits.megabytes * 1e6))
        try:
            options, form_format = chosen_options(form.fields, self._engine.model.options)
            job = await run_in_threadpool(self._engine.folder.begin)
            name = shown_name(form.file.filename)
            try:
                sha256 = await write_upload(form.file, self._engine.folder.upload(job))
                suffix, width, height = await run_in_threadpool(
                    checked_picture, self._engine.folder.upload(job), name, options, client.limits
                )
            except BaseException:
                await run_in_threadpool(self._engine.folder.remove, job)
                raise
        finally:
            await form.file.close()
        suffix = suffix_of(form_format, suffix)
        new = Submission(
            id=job, client=client.name, name=name, options=options, suffix=suffix, width=width, height=height,
            digest=digest_of(sha256, options, suffix), idempotency_key=idempotency_key,
        )  # fmt: skip
        stored, is_new = await run_in_threadpool(self._engine.submit, new, client)
        request.state.told["job"] = stored.id
        if self._log_details:
            _log.info("asked for", extra={"job": stored.id, "name_given": name, "options": vars(options)})
        view = await run_in_threadpool(self._view, stored.id, client)
        return Response(
            view.model_dump_json(), 202 if is_new else 200, {"Location": f"/v1/jobs/{stored.id}"}, "application/json"
        )

    def list(
        self,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        before: Annotated[str | None, Query(description="only jobs older than this one", max_length=64)] = None,
        state: State | None = None,
    ) -> JobPage:
        """Your jobs, the newest first."""
        client: Client = request.state.client
        found = self._engine.store.page(client.name, limit + 1, before, state)
        views = [job_view(job, self._engine.progress(job), self._engine.keep) for job in found[:limit]]
        return JobPage(jobs=views, next=found[limit - 1].id if len(found) > limit else None)

    def get(self, request: Request, job: JobID) -> JobView:
        """A job as it is now."""
        return self._view(job, self._told(request, job))

    def delete(self, request: Request, job: JobID) -> None:
        """Forget a job and remove its files; one at work is stopped."""
        self._engine.delete(self._stored(request, job))

    def cancel(self, request: Request, job: JobID) -> JobView:
        """Cancel a job. A worker at it leaves it after the step it is at; one that has ended stays as it is."""
        self._engine.cancel(self._stored(request, job))
        return self._view(job, request.state.client)

    async def events(self, request: Request, job: JobID) -> StreamingResponse:
        """News of a job as server-sent events: first its present state, then each change; the stream ends with the job.

        The events are the states (queued, running, done, failed, cancelled, expired), preview, step, and deleted;
        each carries the job as `GET /v1/jobs/{job}` has it, without its options. There is nothing to resume: a new
        stream begins with the present state, whatever Last-Event-ID says.
        """
        client = self._told(request, job)
        await run_in_threadpool(self._engine.look, job, client)  # a 404 comes before the stream
        assert self.hub is not None

        async def stream(hub: Hub) -> AsyncIterator[str]:
            async for text in changes(hub, job, lambda: self._view(job, client)):
                yield text

        return StreamingResponse(stream(self.hub), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    def result(self, request: Request, job: JobID) -> StreamingResponse:
        """The restored picture."""
        stored = self._stored(request, job)
        return _picture(self._engine.result(stored), stored, stored.suffix, "restored")

    def preview(self, request: Request, job: JobID) -> StreamingResponse:
        """The clean preview, a PNG: there before the first step, and for as long as the result is kept."""
        stored = self._stored(request, job)
        return _picture(self._engine.preview(stored), stored, ".png", "preview")

    def options(self, request: Request) -> OptionsView:
        """What may be set, its ranges, and what each preset sets."""
        model = self._engine.model
        return OptionsView(
            model=model.identity["model"],
            default_preset=DEFAULT_PRESET,
            presets={name: dataclasses.asdict(model.options(name)) for name in PRESETS},
            formats=[*FORMATS],
            options=option_schemas(),
            limits=dataclasses.asdict(request.state.client.limits),
        )

    def health(self) -> HealthView:
        """Answers whenever the service lives."""
        engine = self._engine
        ready = engine.num_ready > 0 and not engine.closing
        return HealthView(ready=ready, workers_ready=engine.num_ready, workers=engine.num_workers, version=__version__)

    def ready(self) -> JSONResponse:
        """200 when jobs are taken and a worker has opened the weights, else 503."""
        health = self.health()
        return JSONResponse(health.model_dump(), 200 if health.ready else 503)

    def metrics(self) -> Response:
        """Figures in the text format of Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    def _admit(self, request: Request, client: Client) -> None:
        request.state.client, request.state.told = client, {"client": client.name}
        self._pace.check(client)

    def _told(self, request: Request, job: str) -> Client:
        request.state.told["job"] = job
        client: Client = request.state.client
        return client

    def _stored(self, request: Request, job: str) -> StoredJob:
        return self._engine.look(job, self._told(request, job))[0]

    def _view(self, job: str, client: Client) -> JobView:
        return job_view(*self._engine.look(job, client), self._engine.keep)


def _picture(path: Path, job: StoredJob, suffix: str, what: str) -> StreamingResponse:
    """A file as a download, named after the user's own; never shown by a browser in place."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise JobExpiredError("the picture was removed a moment ago") from None
    size = stream.seek(0, 2)
    name = f"{job.name.rpartition('.')[0] or job.name}.{what}{suffix}"
    plain = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "._- ") else "_" for sign in name)
    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
    }
    return StreamingResponse(_chunks(stream), media_type=_IMAGES[suffix], headers=headers)


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        stream.seek(0)
        while chunk := stream.read(_CHUNK):
            yield chunk
