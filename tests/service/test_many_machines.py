"""`supir serve --ray-address`: workers on several machines, here as many raylets, one of which is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ray_cluster import kill_head, kill_machine, ray_cluster
from service.serving import LONG, QUICK, Server, picture, restored, until

SLOW = {**QUICK, "num_steps": 50}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")  # Ray waits a minute for its head


@pytest.fixture
def cluster(settings: None) -> Iterator[Any]:
    with ray_cluster() as started:
        yield started


@pytest.mark.slow
def test_a_machine_that_is_killed_in_the_middle(cluster: Any, model: Path, pipeline: Any, tmp_path: Path) -> None:
    server = Server(tmp_path, model, "--workers", 2, "--ray-address", cluster.address)
    with server.client() as client:
        until(lambda: len(server.lines("worker ready")) == 2, 120)
        assert not [child for child in psutil.Process(server.process.pid).children() if "spawn" in str(child.cmdline())]
        cancelled = client.submit(picture(9), **LONG)
        kinds = []
        for event in client.events(cancelled):
            kinds.append(event.kind)
            if event.kind == "step":
                client.cancel(cancelled)
        assert kinds[-1] == "cancelled"
        assert "preview" in kinds
        jobs = [client.submit(picture(seed), seed=seed, **SLOW) for seed in range(4)]
        until(
            lambda: sum(client.get(job).step or 0 for job in jobs[:2]) > 0 and client.get(jobs[1]).state == "running",
            120,
        )
        kill_machine(cluster.machines[1])
        until(lambda: server.lines("worker died"), 120)
        cluster.add_node(num_cpus=1)  # where the worker is replaced
        for seed, job in enumerate(jobs):
            done = client.wait(job)
            assert client.result(done) == restored(pipeline, picture(seed), tmp_path, seed=seed, **SLOW)
            assert client.preview(done).startswith(b"\x89PNG")
        bad = client.submit(picture(1)[:-500] + b"\0" * 500, **QUICK)
        until(lambda: client.get(bad).state == "failed", 120)
        assert str(client.get(bad).error).startswith("picture: damaged or truncated")
        until(lambda: len(server.lines("worker ready")) == 3, 300)
        assert client.wait(client.submit(picture(), **QUICK)).state == "done"
    assert server.stop() == 0
    assert [server.times_done(job.id) for job in jobs] == [1] * len(jobs)
    begun = [line["job"] for line in server.lines("job begun")]
    again = [job.id for job in jobs if begun.count(job.id) > 1]
    assert len(again) == len(server.lines("worker died")) == 1, "the one that was at work on the killed machine"
    assert server.lines("mistake of ours") == []
    print(f"\n{len(jobs)} jobs on two machines, one killed: each done once, begun again {len(again)}; workers that"
          f" opened the weights {len(server.lines('worker ready'))}")  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("settings")
def test_the_head_of_the_cluster_is_lost(model: Path, pipeline: Any, tmp_path: Path) -> None:
    """The service ends; begun again beside another cluster it goes on where it was."""
    with ray_cluster() as first:
        server = Server(tmp_path, model, "--workers", 2, "--ray-address", first.address)
        with server.client() as client:
            until(lambda: len(server.lines("worker ready")) == 2, 120)
            jobs = [client.submit(picture(seed), seed=seed, **SLOW) for seed in range(4)]
            until(lambda: client.get(jobs[1]).state == "running", 120)
            kill_head(first)
            until(lambda: server.process.poll() is not None, 120)
    ended = server.process.returncode
    assert ended != 0
    server.only_json = False  # Ray has said what it lost
    with ray_cluster() as second:
        server.start("--ray-address", second.address)
        with server.client() as client:
            for seed, job in enumerate(jobs):
                done = client.wait(job)
                assert client.result(done) == restored(pipeline, picture(seed), tmp_path, seed=seed, **SLOW)
        assert server.stop() == 0
    assert [server.times_done(job.id) for job in jobs] == [1] * len(jobs)
    print(f"\nthe head lost, the service ended with {ended} and begun again: {len(jobs)} jobs, each"
          " done once")  # fmt: skip
