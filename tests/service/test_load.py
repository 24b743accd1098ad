"""Many clients at once: no job lost or done twice, no mistake of the server, no memory that grows; killed in the middle
or not.

`--load-seconds` says for how long (20), `--load-model bundled` with which model (a tiny one): `make service-load`.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil
import pytest

from service.serving import QUICK, Server, picture, until
from supir.client import Client
from supir.errors import BusyError, ServiceError
from supir.weights.model_folder import BUNDLED_MODEL

CLIENTS = 50
QUEUE = 30
ONE_STEP = {**QUICK, "num_steps": 1}
Answer = TypeVar("Answer")


class Load:
    """What all clients do together, and what came of it.

    Args:
        server: asked by all.
        seconds: for which they hand in jobs.
        patient: they ask again when the server cannot be reached, as long as it takes.
    """

    def __init__(self, server: Server, seconds: float, *, patient: bool = False) -> None:
        self.server, self.patient, self.end = server, patient, time.monotonic() + seconds
        self.lock = threading.Lock()
        self.kept: set[str] = set()
        """Jobs that were accepted, and not cancelled."""
        self.cancelled: set[str] = set()
        self.results: dict[int, set[str]] = defaultdict(set)
        """Hashes of the results by client: each client hands in one picture, again and again."""
        self.count: Counter[str] = Counter()
        self.strange: list[str] = []
        self.memory: dict[str, list[int]] = {"service": [], "worker": []}

    def run(self, meanwhile: Callable[[float], None] = lambda left: None) -> None:
        """All clients, until the time is over and each has its last result."""
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            meanwhile(self.end - time.monotonic())
            self._measure()
            time.sleep(0.5)

    def _client(self, number: int) -> None:
        chance = random.Random(number)
        with Client(self.server.url) as client:
            while time.monotonic() < self.end and not self.strange:
                try:
                    self._step(client, chance, number)
                except BusyError as error:
                    self._note("busy")
                    time.sleep(min(error.retry_after or 1, 1))
                except Exception as error:  # a thread's error would be lost
                    self.strange.append(f"{type(error).__name__}: {error}")

    def _step(self, client: Client, chance: random.Random, number: int) -> None:
        key = f"{number}-{chance.random()}"

        def submit() -> Any:
            return client.submit(picture(number), idempotency_key=key, **ONE_STEP)

        job = self._asked(submit)
        with self.lock:
            self.kept.add(job.id)
        if chance.random() < 0.2:
            assert self._asked(submit).id == job.id
        if chance.random() < 0.2:
            if self._asked(lambda: client.cancel(job)).state == "cancelled":  # else it was done before
                with self.lock:
                    self.kept.remove(job.id)
                    self.cancelled.add(job.id)
            self._note("cancel")
            return
        if chance.random() < 0.3:
            self._asked(lambda: list(client.jobs(state="queued")))
        done = self._asked(lambda: client.wait(job))
        found = hashlib.sha256(self._asked(lambda: client.result(done))).hexdigest()
        assert found == done.sha256
        with self.lock:
            self.results[number].add(found)
        self._note("done")

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        while True:
            try:
                return ask()
            except ServiceError as error:
                if not self.patient or "cannot be reached" not in str(error):
                    raise
                self._note("asked again")
                time.sleep(0.5)

    def _note(self, what: str) -> None:
        with self.lock:
            self.count[what] += 1

    def _measure(self) -> None:
        try:
            service = psutil.Process(self.server.process.pid)
            workers = [child for child in service.children() if "spawn_main" in " ".join(child.cmdline())]
            self.memory["service"].append(int(service.memory_info().rss))
            self.memory["worker"].append(sum(int(worker.memory_info().rss) for worker in workers))
        except psutil.NoSuchProcess:  # killed a moment ago
            pass


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("load_seconds"))


@pytest.fixture
def server(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Server:
    folder = BUNDLED_MODEL if request.config.getoption("load_model") == "bundled" else model
    started = Server(tmp_path, folder, "--queue", QUEUE, "--queued", QUEUE)
    with started.client() as client:
        client.delete(client.wait(client.submit(picture(), **ONE_STEP)))
    return started


def settled(server: Server, load: Load) -> Counter[str]:
    """Wait until nothing is queued or at work; the jobs by state, all of which the clients know."""
    assert load.strange == []
    with server.client() as client:
        until(lambda: not list(client.jobs(state="queued")) and not list(client.jobs(state="running")), 120)
        states = {job.id: job.state for job in client.jobs()}
    assert states == {**dict.fromkeys(load.kept, "done"), **dict.fromkeys(load.cancelled, "cancelled")}
    assert {len(found) for found in load.results.values()} == {1}, "a picture has one result, however often it is made"
    assert load.count["done"] > 10
    return Counter(states.values())


def checked_log(server: Server) -> tuple[Counter[Any], Counter[Any]]:
    """(requests by status, times that each job was done); nothing in it is a mistake of the server."""
    statuses: Counter[Any] = Counter(line["status"] for line in server.lines("request"))
    assert not [status for status in statuses if status >= 500 or status == 0]
    assert server.lines("mistake of ours") == []
    return statuses, Counter(line["job"] for line in server.lines("job ended") if line["state"] == "done")


@pytest.mark.slow
def test_fifty_clients(server: Server, seconds: float) -> None:
    load = Load(server, seconds)
    load.run()
    states = settled(server, load)
    assert server.stop() == 0
    statuses, ended = checked_log(server)
    assert set(ended.values()) == {1}
    assert load.kept <= ended.keys()
    figures = {}
    for name, found in load.memory.items():
        half = len(found) // 2
        early, late = max(found[:half]), max(found[half:])
        figures[name] = f"{early / 1e6:.0f}, {late / 1e6:.0f} MB"
        assert late < early + 30e6, f"{name}: {figures[name]}"
    print(f"\n{CLIENTS} clients, {seconds:g} s: {dict(load.count)}; jobs {dict(states)}; answers {dict(statuses)};"
          f" the most memory of either half: {figures}")  # fmt: skip


@pytest.mark.slow
def test_fifty_clients_and_a_kill(server: Server, seconds: float) -> None:
    load, at_the_kill = Load(server, seconds, patient=True), []

    def kill_once(left: float) -> None:
        if at_the_kill or left > seconds / 2:
            return
        server.kill()
        with sqlite3.connect(server.data / "service.sqlite") as database:
            at_the_kill.append(dict(database.execute("SELECT id, state FROM job").fetchall()))
        at_the_kill.append(len(server.lines("job begun")))
        server.start("--port", urlsplit(server.url).port)

    load.run(kill_once)
    states = settled(server, load)
    assert server.stop() == 0
    statuses, ended = checked_log(server)
    before, num_begun = at_the_kill
    begun_after = {line["job"] for line in server.lines("job begun")[num_begun:]}
    had_ended = {job for job, state in before.items() if state not in ("queued", "running")}
    assert not had_ended & begun_after, "what had ended is not begun again"
    assert set(ended.values()) == {1}
    assert len(load.kept - ended.keys()) <= 1, "the kill may come between the job's end and the line about it"
    print(f"\n{CLIENTS} clients, {seconds:g} s, killed in the middle with {dict(Counter(before.values()))}:"
          f" {dict(load.count)}; jobs {dict(states)}; answers {dict(statuses)}")  # fmt: skip
