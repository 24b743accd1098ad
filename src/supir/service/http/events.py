"""News of a job as server-sent events: the present state first, then every change, until the job has ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from fastapi.concurrency import run_in_threadpool

from supir.errors import JobNotFoundError
from supir.service.engine import Engine
from supir.service.http.responses import JobView, job_view
from supir.service.limits import Client
from supir.service.stored_job import ACTIVE, StoredJob

_ALIVE = 15.0
"""Seconds after which a comment keeps a silent connection open."""
_OVERLAP = 2.0
"""Seconds that two looks at the jobs that have ended have in common: what is written has its time from just before."""
_REST = 0.05
"""Seconds between two looks at a job: faster steps than that are told together."""
_REST_OF_ALL = 0.15
"""The same for all jobs, which may be many."""


class _Bell:
    """Wakes one stream.

    Args:
        client: whose it is.
    """

    def __init__(self, client: str) -> None:
        self.client = client
        self.rung = asyncio.Event()
        self.rung.set()
        self.touched: set[str] = set()
        """Jobs that something has happened to since it last woke."""


class Hub:
    """Wakes the streams of jobs that there is news of; lives in the event loop, and hears from any thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._waiting: dict[str | None, set[_Bell]] = {}
        self._loop = asyncio.get_running_loop()
        self.closed = False
        engine.listen(self._told)

    def close(self) -> None:
        """End all streams; from any thread."""
        self.closed = True
        self._told(None)

    async def wakes(self, job: str | None, client: str) -> AsyncGenerator[set[str] | None, None]:
        """At once, and whenever there may be news of the job (None: of any of this client): the jobs that something has
        happened to since the last time. None when there was no news for long.
        """
        bell = _Bell(client)
        self._waiting.setdefault(job, set()).add(bell)
        try:
            while not self.closed:
                try:
                    await asyncio.wait_for(bell.rung.wait(), _ALIVE)
                except TimeoutError:
                    yield None
                    continue
                bell.rung.clear()
                touched, bell.touched = bell.touched, set()
                yield touched
                await asyncio.sleep(_REST if job else _REST_OF_ALL)
        finally:
            self._waiting[job].discard(bell)
            if not self._waiting[job]:
                del self._waiting[job]

    def _told(self, job: StoredJob | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, job)

    def _wake(self, job: StoredJob | None) -> None:
        for key, bells in self._waiting.items():
            for bell in bells:
                if job is not None and bell.client == job.client:
                    bell.touched.add(job.id)
                if job is None or (bell.client == job.client and key in (None, job.id)):
                    bell.rung.set()


async def changes(hub: Hub, client: Client, job: str | None = None) -> AsyncGenerator[str, None]:
    """The events of a job, as text, until it has ended; or those of all jobs of a client, without an end, first of
    those that are active.
    """
    before: dict[str, JobView] = {}
    since = time.time() - _OVERLAP
    async with aclosing(hub.wakes(job, client.name)) as wakes:
        async for touched in wakes:
            if touched is None:
                yield ": still here\n\n"
                continue
            since, then = time.time() - _OVERLAP, since
            now, gone = await run_in_threadpool(_look, hub.engine, client, then, touched, job)
            for each in gone:
                yield f"event: deleted\ndata: {json.dumps({} if job else {'id': each})}\n\n"
            for view in now.values():
                for kind in _kinds(before.get(view.id), view):
                    yield _event(kind, view)
            if job is not None and (gone or now[job].state not in ACTIVE):
                return
            before = now


def _look(
    engine: Engine, client: Client, since: float, touched: set[str], job: str | None
) -> tuple[dict[str, JobView], list[str]]:
    """The jobs that are active, or have ended or been described since then, with those that were touched, or one job
    alone; and the IDs of those that there are not.
    """
    found, gone = [] if job else engine.active_or_recent(client, since), []
    for each in ({job} if job else touched) - {stored.id for stored, _ in found}:
        try:
            found.append(engine.look(each, client))
        except JobNotFoundError:
            gone.append(each)
    return {stored.id: job_view(stored, progress, engine.keep) for stored, progress in found}, gone


def _event(kind: str, view: JobView) -> str:
    return f"event: {kind}\ndata: {json.dumps(view.model_dump(mode='json', exclude={'options'}))}\n\n"


def _kinds(before: JobView | None, now: JobView) -> Iterator[str]:
    """What changed: the state (or, in the queue, the place and what is waited for), the preview, the step, or how much
    of the work is done.
    """

    def where(view: JobView) -> tuple[object, ...]:
        return view.state, view.position, view.waits_for

    if before is None or where(before) != where(now):
        yield now.state
    elif before.caption != now.caption:
        yield "caption"
    if now.state != "running":
        return
    if now.preview and (before is None or before.state != "running" or not before.preview):
        yield "preview"
    if now.step and (before is None or before.step != now.step):
        yield "step"
    elif before is not None and _percent(before) != _percent(now):
        yield "progress"


def _percent(view: JobView) -> int:
    return int(100 * ((view.progress or 0.0) + (view.audit_progress or 0.0)))
