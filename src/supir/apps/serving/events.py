"""News of a job as server-sent events: the present state first, then every change, until the job has ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator

from fastapi.concurrency import run_in_threadpool

from supir.apps.serving.views import JobView
from supir.errors import JobNotFoundError
from supir.service.engine import Engine
from supir.service.jobs import ACTIVE

__all__ = ["Hub", "changes", "changes_of_all"]

_ALIVE = 15.0
"""Seconds after which a comment keeps a silent connection open."""
_OVERLAP = 2.0
"""Seconds that two looks at the jobs that have ended have in common: what is written has its time from just before."""
_REST = 0.05
"""Seconds between two looks at a job: faster steps than that are told together."""
_REST_OF_ALL = 0.15
"""The same for all jobs, which may be many."""


class Hub:
    """Wakes the streams of jobs that there is news of; lives in the event loop, and hears from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._waiting: dict[str | None, set[asyncio.Event]] = {}
        self._loop = asyncio.get_running_loop()
        self.closed = False
        engine.listen(self._told)

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        self._wake(None)

    async def wakes(self, job: str | None) -> AsyncIterator[bool]:
        """True at once and whenever there may be news of the job (None: of any), False when there was none for long."""
        bell = asyncio.Event()
        bell.set()
        self._waiting.setdefault(job, set()).add(bell)
        try:
            while not self.closed:
                try:
                    await asyncio.wait_for(bell.wait(), _ALIVE)
                except TimeoutError:
                    yield False
                    continue
                bell.clear()
                yield True
                await asyncio.sleep(_REST if job else _REST_OF_ALL)
        finally:
            self._waiting[job].discard(bell)
            if not self._waiting[job]:
                del self._waiting[job]

    def _told(self, job: str | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, job)

    def _wake(self, job: str | None) -> None:
        jobs = tuple(self._waiting) if job is None else (job, None)
        for bell in [bell for each in jobs for bell in self._waiting.get(each, ())]:
            bell.set()


async def changes(hub: Hub, job: str, look: Callable[[], JobView]) -> AsyncIterator[str]:
    """The events of one job, as text; ``look`` is called in a thread."""
    before: JobView | None = None
    async for news in hub.wakes(job):
        if not news:
            yield ": still here\n\n"
            continue
        try:
            now = await run_in_threadpool(look)
        except JobNotFoundError:
            yield "event: deleted\ndata: {}\n\n"
            return
        for kind in _kinds(before, now):
            yield _event(kind, now)
        if now.state not in ACTIVE:
            return
        before = now


async def changes_of_all(hub: Hub, look: Callable[[float], list[JobView]]) -> AsyncIterator[str]:
    """The events of all jobs of a client, as text, without an end; first of those that are active.

    Args:
        hub: wakes.
        look: called in a thread with seconds since 1970; the jobs that are active, or have ended or been described
            since then.
    """
    before: dict[str, JobView] = {}
    since = time.time() - _OVERLAP
    async for news in hub.wakes(None):
        if not news:
            yield ": still here\n\n"
            continue
        since, then = time.time() - _OVERLAP, since
        now = {view.id: view for view in await run_in_threadpool(look, then)}
        for gone in before.keys() - now.keys():
            ended = before[gone].finished
            if ended is None or ended.timestamp() >= then:
                yield f"event: deleted\ndata: {json.dumps({'id': gone})}\n\n"
        for job, view in now.items():
            for kind in _kinds(before.get(job), view):
                yield _event(kind, view)
        before = now


def _event(kind: str, view: JobView) -> str:
    return f"event: {kind}\ndata: {json.dumps(view.model_dump(mode='json', exclude={'options'}))}\n\n"


def _kinds(before: JobView | None, now: JobView) -> Iterator[str]:
    """What changed: the state (or, in the queue, the place), the preview, the step."""
    if before is None or (before.state, before.position) != (now.state, now.position):
        yield now.state
    elif before.caption != now.caption:
        yield "caption"
    if now.state != "running":
        return
    if now.preview and (before is None or before.state != "running" or not before.preview):
        yield "preview"
    if now.step and (before is None or before.step != now.step):
        yield "step"
