"""Every change of a job is told to those whose it is, in every stream; and nothing is left of streams that ended."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from service import patient
from service.serving import LONG, Server, picture, until
from service.test_restart import submission
from supir.jobs.model import Model
from supir.service.engine import Engine
from supir.service.http.events import Hub, changes
from supir.service.limits import Client

FORM = "multipart/form-data; boundary=b"
LONG_AGO = 7200.0
"""Seconds: so that nobody takes a job for one that has just ended."""


class Listener:
    """Hears all events of a client, as a tab does."""

    def __init__(self, hub: Hub, client: str) -> None:
        self.heard: list[tuple[str, str]] = []
        self._events = changes(hub, Client(name=client))
        self.task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for text in self._events:
            kind, data = text.removeprefix("event: ").split("\ndata: ")
            self.heard.append((kind, json.loads(data)["id"]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_change_reaches_every_stream(model: Path, tmp_path: Path) -> None:
    engine = Engine(tmp_path / "data", Model(folder=model), keep=3600)

    def done(client: str) -> str:
        job = engine.store.add(submission(engine.folder, client=client), Client(name=client), 99)[0].id
        engine.store.claim()
        engine.store.finish(job, "done")
        with engine.store._database.writing() as database:
            database.execute("UPDATE job SET finished = finished - ? WHERE id = ?", (LONG_AGO, job))
        return job

    def stored(job: str, client: str = "a") -> Any:
        return engine.store.get(job, client)

    async def hear() -> None:
        hub = Hub(engine)
        one, two, other = (Listener(hub, client) for client in ("a", "a", "b"))
        kept, gone, foreign = done("a"), done("a"), done("b")
        queued = engine.store.add(submission(engine.folder), Client(name="a"), 99)[0].id
        expected = [("queued", queued)]  # what is active is told first

        async def after(change: Any, kind: str, job: str) -> None:
            await asyncio.sleep(0.2)
            change()
            expected.append((kind, job))
            for _ in range(3000):
                if one.heard == two.heard == expected:
                    return
                await asyncio.sleep(0.02)
            raise AssertionError((expected, one.heard, two.heard))

        def described() -> None:
            engine.store.describe(kept, "A cat.", "somebody")
            engine.news(stored(kept))

        await after(lambda: engine.delete(stored(gone)), "deleted", gone)
        await after(lambda: engine.cancel(stored(queued)), "cancelled", queued)
        await after(described, "done", kept)
        await after(engine.expire, "expired", kept)
        assert other.heard == [("expired", foreign)]
        assert sum(map(len, hub._waiting.values())) == 3
        for listener in (one, two, other):
            listener.task.cancel()
        await asyncio.gather(one.task, two.task, other.task, return_exceptions=True)
        for listener in (one, two, other):
            await listener._events.aclose()
        assert not hub._waiting

    asyncio.run(hear())
    engine.store.close()
    engine.folder.close()


@pytest.mark.slow
def test_clients_that_leave_leave_nothing(server: Server) -> None:
    """In the middle of events, of a download, of an upload, before a body that nobody asked for."""
    with server.client() as client:
        done = client.wait(client.submit(picture(1, 500, 500), until="preview", min_size=64))
        long = client.submit(picture(), **LONG)
    service = psutil.Process(server.process.pid)

    def opened() -> list[str]:
        return sorted(file.path for file in service.open_files() if "/jobs/" in file.path)

    def leave(method: str, path: str, **more: Any) -> None:
        with httpx2.Client(timeout=patient.SECONDS) as http, http.stream(method, server.url + path, **more) as answer:
            assert answer.status_code == 200

    def half() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + bytes(100_000)
        raise ConnectionAbortedError

    jobs = {path.name for path in (server.data / "jobs").iterdir()}
    connections = len(service.net_connections("tcp"))
    for _ in range(5):
        leave("GET", "/v1/events")
        leave("GET", f"/v1/jobs/{long.id}/events")
        leave("GET", f"/v1/jobs/{done.id}/result")
        leave("HEAD", f"/v1/jobs/{done.id}/result")
        with pytest.raises(ConnectionAbortedError):
            patient.post(f"{server.url}/v1/jobs", content=half(), headers={"Content-Type": FORM})
    until(lambda: opened() == [])
    until(lambda: {path.name for path in (server.data / "jobs").iterdir()} == jobs)
    until(lambda: len(service.net_connections("tcp")) <= connections)
    with server.client() as client:
        client.delete(long)
        client.delete(done)
