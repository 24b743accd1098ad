"""Many clients at once: no job lost or done twice, no mistake of the server, no memory that grows.

SUPIR_LOAD_SECONDS says for how long (20).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.serving import QUICK, Server, picture, until
from supir.client import Client
from supir.errors import BusyError

CLIENTS = 50
SECONDS = float(os.environ.get("SUPIR_LOAD_SECONDS", "20"))
ONE_STEP = {**QUICK, "num_steps": 1}


class Load:
    """What all clients did together."""

    def __init__(self, server: Server) -> None:
        self.url, self.end = server.url, time.monotonic() + SECONDS
        self.lock = threading.Lock()
        self.kept: set[str] = set()
        self.count: Counter[str] = Counter()
        self.strange: list[str] = []

    def __call__(self, number: int) -> None:
        chance = random.Random(number)
        with Client(self.url) as client:
            while time.monotonic() < self.end and not self.strange:
                try:
                    self.step(client, chance, number)
                except BusyError as error:
                    self.note("busy")
                    time.sleep(min(error.retry_after or 1, 1))
                except Exception as error:  # a thread's error would be lost
                    self.strange.append(f"{type(error).__name__}: {error}")

    def step(self, client: Client, chance: random.Random, number: int) -> None:
        key = f"{number}-{chance.random()}"
        job = client.submit(picture(number), idempotency_key=key, **ONE_STEP)
        if chance.random() < 0.2:
            assert client.submit(picture(number), idempotency_key=key, **ONE_STEP).id == job.id
        if chance.random() < 0.2:
            client.cancel(job)
            self.note("cancel")
            return
        with self.lock:
            self.kept.add(job.id)
        if chance.random() < 0.3:
            list(client.jobs(state="queued"))
        done = client.wait(job)
        assert len(client.result(done)) > 1000
        self.note("done")

    def note(self, what: str) -> None:
        with self.lock:
            self.count[what] += 1


def server_memory(server: Server) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


@pytest.mark.slow
def test_fifty_clients(model: Path, tmp_path: Path) -> None:
    server = Server(tmp_path, model, "--queue", 30, "--queued", 30)
    memory: list[int] = []
    with server.client() as client:
        client.wait(client.submit(picture(), **ONE_STEP))
        load = Load(server)
        threads = [threading.Thread(target=load, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(server_memory(server))
            time.sleep(0.5)
        assert load.strange == []
        until(lambda: not list(client.jobs(state="queued")) and not list(client.jobs(state="running")), 60)
        states: Counter[str] = Counter(job.state for job in client.jobs())
        for job in load.kept:
            assert client.get(job).state == "done"
    assert server.stop() == 0
    statuses: Counter[Any] = Counter(line["status"] for line in server.lines("request"))
    ended = Counter(line["job"] for line in server.lines("job ended") if line["state"] == "done")
    early, late = max(memory[: len(memory) // 2]), max(memory[len(memory) // 2 :])
    print(f"{dict(load.count)}; {dict(states)}; {dict(statuses)}; memory {early / 1e6:.0f}, {late / 1e6:.0f} MB")
    assert set(ended.values()) == {1}
    assert load.kept <= ended.keys()
    assert set(states) <= {"done", "cancelled"}
    assert load.count["done"] > 10
    assert not [status for status in statuses if status >= 500 or status == 0]
    assert server.lines("mistake of ours") == []
    assert late < early + 30e6
