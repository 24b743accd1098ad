"""The routes: each finds out who asks, and hands on to the engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from supir import __version__
from supir.errors import JobExpiredError, KeyRefusedError
from supir.options import DEFAULT_PRESET, GOES_WITH, PRESETS, RestoreOptions, unused_options
from supir.options.audit import AuditOptions
from supir.options.packages import FACES, LETTERS, lacking
from supir.options.presets import same_presets, trade_offs
from supir.prompts import NEGATIVE_PROMPT, POSITIVE_PROMPT
from supir.service.engine import Engine
from supir.service.http.downloads import Bundle, result_name, zipped
from supir.service.http.estimates import Estimates
from supir.service.http.events import Hub, changes
from supir.service.http.prometheus import Metrics
from supir.service.http.responses import (
    ErrorView,
    EventStream,
    HealthView,
    JobPage,
    JobView,
    OpenFile,
    OptionsView,
    PlanView,
    State,
    chosen_schema,
    form_schema,
    job_view,
)
from supir.service.http.submissions import JobID, Submitting
from supir.service.http.uploads import read_json
from supir.service.limits import LOCAL, Client, Limits, RateLimiter, who
from supir.service.stored_job import StoredJob
from supir.service.validation import (
    CROP_PIXELS,
    FORMATS,
    SubmissionOptions,
    chosen_options,
)
from supir.weights.first import offered_first
from supir.weights.lora_files import offered

_IMAGES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".avif": "image/avif",
}
_KINDS = {**_IMAGES, ".json": "application/json"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
_BEARER = HTTPBearer(auto_error=False, description="a key that `supir serve --new-key` printed")

_TOLD_BY = 5
"""Results that tell how fast it goes: the last ones."""

Side = Annotated[int, Query(ge=1, le=100_000, description="of the picture, in pixels")]
ViewName = Annotated[Literal["input", "step", "result", "thumbnail"], PathParameter(description="what is seen")]


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorView} for status in (401, 403, 422, 429, 500, 503, *statuses)}


class Routes:
    """What the routes share, and the routes.

    Args:
        engine: does it all.
        metrics: counts.
        clients: who may ask; None lets everybody ask, as one client.
        limits: of that one.
        log_details: file names and options go into the log as well.
        address: where other devices of the network find the page; None where they do not.
    """

    def __init__(
        self, engine: Engine, metrics: Metrics, clients: list[Client] | None, limits: Limits, log_details: bool,
        address: str | None = None,
    ) -> None:  # fmt: skip
        self._engine, self._metrics, self._clients = engine, metrics, clients
        self._everybody, self._pace = Client(name=LOCAL, limits=limits), RateLimiter()
        self.estimates, self._address = Estimates(engine.model), address
        self._submitting = Submitting(engine, log_details, self.estimates)
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
        again = {"content": {"application/json": {"schema": chosen_schema()}}}
        submitted = {200: {"model": JobView, "description": "the job of an earlier request with this Idempotency-Key"}}
        pictures = {200: {"content": dict.fromkeys(_IMAGES.values(), _BINARY), "description": "the picture"}}
        zips = {200: {"content": {"application/zip": _BINARY}, "description": "the zip"}}
        codes = {200: {"content": {"image/svg+xml": {"schema": {"type": "string"}}}, "description": "the code"}}
        reports = {200: {"content": {"application/json": {"schema": {"type": "object"}}}, "description": "the report"}}
        events = {200: {"content": {"text/event-stream": {"schema": _EVENT}}, "description": "the events"}}
        job = "/v1/jobs/{job}"
        add("/v1/jobs", "POST", self._submitting.submit, 202, (413, 415, 503, 507), response_model=JobView,
            responses=submitted, openapi_extra={"requestBody": form}, **asking)  # fmt: skip
        add(f"{job}/again", "POST", self._submitting.again, 202, (404, 410, 415, 503, 507), response_model=JobView,
            responses=submitted, openapi_extra={"requestBody": again}, **asking)  # fmt: skip
        add("/v1/jobs", "GET", self.list, errors=(404,), response_model=JobPage, **asking)
        add(job, "GET", self.get, errors=(404,), response_model=JobView, **asking)
        add(job, "DELETE", self.delete, 204, (404,), **asking)
        add(f"{job}/cancel", "POST", self.cancel, errors=(404,), response_model=JobView, **asking)
        add(f"{job}/events", "GET", self.events, errors=(404,), responses=events, response_class=StreamingResponse,
            **asking)  # fmt: skip
        add("/v1/events", "GET", self.all_events, responses=events, response_class=StreamingResponse, **asking)
        add(f"{job}/audit", "GET", self.audit, errors=(404, 409, 410), responses=reports,
            response_class=StreamingResponse, **asking)  # fmt: skip
        shown = {"result": self.result, "preview": self.preview, "views/{view}": self.view}
        shown |= {"audit/overlay": self.overlay}
        for name, function in shown.items():
            add(f"{job}/{name}", "GET", function, errors=(404, 409, 410), responses=pictures,
                response_class=StreamingResponse, **asking)  # fmt: skip
        add("/v1/results", "POST", self.results, errors=(404, 409, 410), responses=zips,
            response_class=StreamingResponse, **asking)  # fmt: skip
        add("/v1/plan", "POST", self.plan, response_model=PlanView, openapi_extra={"requestBody": again}, **asking)
        add("/v1/code", "POST", self.code, errors=(501,), responses=codes, response_class=Response, **asking)
        add("/v1/options", "GET", self.options, response_model=OptionsView, **asking)
        add("/metrics", "GET", self.metrics, response_class=Response, **asking,
            responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})  # fmt: skip
        router.add_api_route("/health", self.health, methods=["GET"], response_model=HealthView)
        router.add_api_route("/health/ready", self.ready, methods=["GET"], response_model=HealthView,
                             responses={503: {"model": HealthView}})  # fmt: skip
        return router

    def list(
        self,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        before: Annotated[str | None, Query(description="only jobs older than this one", max_length=64)] = None,
        state: State | None = None,
        search: Annotated[
            str, Query(description="only of photos with these words in their names or captions", max_length=200)
        ] = "",
    ) -> JobPage:
        """Your jobs, the newest first."""
        client: Client = request.state.client
        found = self._engine.store.page(client.name, limit + 1, before, state, search)
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

    async def events(self, request: Request, job: JobID) -> EventStream:
        """News of a job as server-sent events: first its present state, then each change; the stream ends with the job.

        The events are the states (queued, running, done, failed, cancelled, expired), preview, step, progress (another
        percent of the work is done) and deleted; each carries the job as `GET /v1/jobs/{job}` has it, without its
        options. There is nothing to resume: a new stream begins with the present state, whatever Last-Event-ID says.
        """
        client = self._told(request, job)
        await run_in_threadpool(self._engine.look, job, client)  # a 404 comes before the stream
        assert self.hub is not None
        return EventStream(changes(self.hub, client, job))

    async def all_events(self, request: Request) -> EventStream:
        """News of all your jobs in one stream, which does not end: first the active ones, then each change, as above;
        and `expired`; and `caption`, when a captioner has described a picture. `deleted` carries the ID alone.
        """
        assert self.hub is not None
        return EventStream(changes(self.hub, request.state.client))

    def view(self, request: Request, job: JobID, view: ViewName) -> OpenFile:
        """What people who watch see, as every browser shows it: the photo as it was read; what the steps aim at, small,
        while it is at work; the result; a thumbnail. Made by `supir web` alone.
        """
        stored = self._stored(request, job)
        path = self._engine.folder.finished_view(stored, view)
        return _file(path, stored, path.suffix, view)

    def result(self, request: Request, job: JobID) -> OpenFile:
        """The restored picture."""
        stored = self._stored(request, job)
        return _file(self._engine.folder.finished_result(stored), stored, stored.suffix, "restored")

    def preview(self, request: Request, job: JobID) -> OpenFile:
        """The clean preview, a PNG: there before the first step, and for as long as the result is kept."""
        stored = self._stored(request, job)
        return _file(self._engine.folder.finished_preview(stored), stored, ".png", "preview")

    def audit(self, request: Request, job: JobID) -> OpenFile:
        """The report of an audit, as `supir audit --json` prints it: what was kept, reconstructed and invented."""
        stored = self._stored(request, job)
        return _file(self._engine.folder.finished_audit(stored)[0], stored, ".json", "audit")

    def overlay(self, request: Request, job: JobID) -> OpenFile:
        """The picture of an audit, a PNG: the result in grey under green (kept), amber (reconstructed) and red
        (invented), what contradicts the photo outlined.
        """
        stored = self._stored(request, job)
        return _file(self._engine.folder.finished_audit(stored)[1], stored, ".png", "audit")

    def options(self, request: Request) -> OptionsView:
        """What may be set, its ranges, and what each preset sets."""
        model = self._engine.model
        unused = unused_options(model.options(), model.presets)
        if model.loras is None:
            unused["lora"] = "none is offered here"
        if model.first_models is None:
            unused["first"] = "none is offered here"
        if lacking(LETTERS) is not None:
            unused |= dict.fromkeys(("letters", "max_changed_words"), "rapidocr is not installed here")
        if lacking(FACES) is not None:
            unused |= dict.fromkeys(("faces", "likeness", "min_face_similarity"), "dlib is not installed here")
        return OptionsView(
            model=model.identity["model"],
            default_preset=DEFAULT_PRESET,
            presets={name: dataclasses.asdict(model.options(name)) for name in PRESETS},
            trade_offs=trade_offs(model.presets),
            same_presets=same_presets(model.presets),
            own_presets=[name for name in PRESETS if model.presets.get("all") or model.presets.get(name)],
            unused=unused,
            goes_with=GOES_WITH,
            words={"positive_prompt": POSITIVE_PROMPT, "negative_prompt": NEGATIVE_PROMPT},
            captioner=self._engine.captioner,
            formats=[*FORMATS],
            options=RestoreOptions.schemas(),
            audit_options={"audit": SubmissionOptions.schemas()["audit"], **AuditOptions.schemas()},
            audit_defaults={"audit": False, **dataclasses.asdict(AuditOptions())},
            loras=[] if model.loras is None else [*offered(model.loras)],
            first_models=[] if model.first_models is None else [*offered_first(model.first_models)],
            limits=dataclasses.asdict(request.state.client.limits),
            crop_pixels=CROP_PIXELS,
            address=self._address,
        )

    def results(self, request: Request, bundle: Bundle) -> StreamingResponse:
        """Several restored pictures as one zip, which is made while it is sent."""
        found = [self._stored(request, job) for job in dict.fromkeys(bundle.jobs)]
        chosen = [(job, self._engine.folder.finished_result(job)) for job in found]
        parts = zipped(chosen, self._engine.model.identity, notice=bundle.notice)
        return StreamingResponse(
            parts, media_type="application/zip", headers={"Content-Disposition": 'attachment; filename="restored.zip"'}
        )

    async def plan(self, request: Request, width: Side, height: Side) -> PlanView:
        """What restoring a picture of this size with these options will come to: the size of the result, and the time
        at work, by what was restored here before.
        """
        client: Client = request.state.client
        options, own, _ = chosen_options({"options": await read_json(request)}, self._engine.model)

        def planned() -> PlanView:
            done = self._engine.store.page(client.name, 10 * _TOLD_BY, state="done")
            made = [job for job in done if job.until == "result"][:_TOLD_BY]
            return self.estimates.plan(width, height, options, client.limits, made, own.auditing)

        return await run_in_threadpool(planned)

    def code(self, text: Annotated[str, Body(embed=True, min_length=1, max_length=500)]) -> Response:
        """A text, such as the page's address, as a code that a phone's camera reads."""
        from supir.service.http.codes import code_of

        return Response(code_of(text), media_type="image/svg+xml")

    def health(self) -> HealthView:
        """Answers whenever the service lives."""
        engine, reason = self._engine, None
        if engine.closing:
            reason = "the service is being stopped"
        elif (trouble := engine.room.look()) is not None:
            reason = str(trouble)
        elif engine.num_ready == 0:
            reason = "no worker has opened the weights yet"
        return HealthView(
            ready=reason is None, reason=reason, workers_ready=engine.num_ready, workers=engine.num_workers,
            version=__version__,
        )  # fmt: skip

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


def _file(path: Path, job: StoredJob, suffix: str, what: str) -> OpenFile:
    """A file as a download, named after the user's own; never shown by a browser in place."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise JobExpiredError("the file was removed a moment ago") from None
    name = result_name(job, what, suffix)
    plain = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "._- ") else "_" for sign in name)
    about = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    return OpenFile(stream, _KINDS[suffix], {"Content-Disposition": about})
