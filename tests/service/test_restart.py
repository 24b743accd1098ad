"""Killed, stopped, and started again: no job is lost, none is done twice."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.serving import LONG, QUICK, Server, picture, restored, until
from supir.errors import JobFailedError, OptionError, ServiceError, SupirError
from supir.service.data_folder import Folder
from supir.service.limits import Client
from supir.service.store import MAX_TRIES, Store
from supir.service.stored_job import Submission

SLOW = {**QUICK, "num_steps": 100}
"""Seconds, in which a test can kill somebody."""


@pytest.mark.slow
def test_killed_in_the_middle_and_stopped_in_the_middle(model: Path, pipeline: Any, tmp_path: Path) -> None:
    server = Server(tmp_path, model)
    with server.client() as client:
        first = client.wait(client.submit(picture(0), **QUICK))
        whole = client.result(first)
        running = client.submit(picture(1), seed=1, **SLOW)
        queued = [client.submit(picture(seed), seed=seed, **QUICK) for seed in (2, 3)]
        for event in client.events(running):
            if event.kind == "step":
                break
    server.kill()
    (server.data / "jobs" / running.id / ".result.png.0123456789ab.tmp").write_bytes(b"half")
    (server.data / "jobs" / "0123").mkdir()
    server.start("--grace", 0)
    with server.client() as client:
        assert client.result(first) == whole
        states = {job.id: job.state for job in client.jobs()}
        assert states[first.id] == "done"
        assert {states[job.id] for job in queued} == {"queued"}
        for job in (running, *queued):
            client.wait(job)
            assert hashlib.sha256(client.result(job)).hexdigest() == client.get(job).sha256
            until(lambda job=job: server.times_done(job.id) == 1)  # type: ignore[misc]
        assert client.result(running) == restored(pipeline, picture(1), tmp_path, seed=1, **SLOW)
        # What is no job's folder is not the service's to take away.
        assert {path.name for path in (server.data / "jobs").iterdir()} == {*states, "0123"}
        assert {path.name for path in (server.data / "jobs" / running.id).iterdir()} == {"preview.png", "result.png"}
        struck = client.submit(picture(5), seed=5, **SLOW)
        for event in client.events(struck):
            if event.kind == "step" and not server.lines("worker died"):
                kill_worker(server)
        assert event.kind == "done"
        assert client.result(struck) == restored(pipeline, picture(5), tmp_path, seed=5, **SLOW)
        assert server.times_done(struck.id) == 1
        last = client.submit(picture(4), **LONG)
        for event in client.events(last):
            if event.kind == "step":
                break
    assert server.stop() == 0
    with sqlite3.connect(server.data / "service.sqlite") as database:
        [found] = database.execute("SELECT state, tries FROM job WHERE id = ?", (last.id,)).fetchall()
    assert found == ("queued", 0)
    assert (server.data / "jobs" / last.id / "upload").read_bytes() == picture(4)
    assert [server.times_done(job.id) for job in (first, running, *queued, last)] == [1, 1, 1, 1, 0]


def test_a_job_that_was_cancelled_at_work_stays_so(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    store = Store(folder.database)
    job, _ = store.add(submission(folder), Client(name="a"), 9)
    assert store.claim() is not None
    assert store.cancel(job.id)
    assert not store.finish(job.id, "done", sha256="1"), "its worker was done a moment later"
    assert store.put_back(job.id, died=True) is None
    assert store.recover() == (set(), set())
    assert store.claim() is None
    assert store.get(job.id, "a").state == "cancelled"


@pytest.mark.slow
def test_a_cancelled_job_is_not_begun_again_after_a_kill(model: Path, tmp_path: Path) -> None:
    server = Server(tmp_path, model)
    with server.client() as client:
        job = client.submit(picture(), **LONG)
        for event in client.events(job):
            if event.kind == "step":
                break
        workers = psutil.Process(server.process.pid).children()
        for worker in workers:
            worker.suspend()  # it does not even hear of it
        assert client.cancel(job).state == "cancelled"
        with pytest.raises(JobFailedError, match="cancelled"):
            client.wait(job)
    server.process.kill()
    for worker in workers:
        worker.resume()  # to end with its service
    server.kill()
    server.start()
    with server.client() as client:
        assert client.wait(client.submit(picture(), **QUICK)).state == "done"
        assert client.get(job).state == "cancelled"
        assert not (server.data / "jobs" / job.id).exists()
    assert server.stop() == 0
    assert [line["job"] for line in server.lines("job begun")].count(job.id) == 1
    assert [line["state"] for line in server.lines("job ended") if line["job"] == job.id] == ["cancelled"]


def kill_worker(server: Server) -> None:
    """As the system does that has no memory left."""
    for process in psutil.Process(server.process.pid).children():
        if "spawn_main" in " ".join(process.cmdline()):
            process.kill()
    until(lambda: server.lines("worker died"))


def submission(folder: Folder, **changed: Any) -> Submission:
    from supir.options import restore_options

    values = {"client": "a", "name": "x.png", "options": restore_options(), "suffix": ".png", "width": 4, "height": 4}
    return Submission(**{"id": folder.begin(), "digest": "0", **values, **changed})


def test_a_job_at_which_the_service_dies_is_given_up(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    store = Store(folder.database)
    job, _ = store.add(submission(folder), Client(name="a"), 9)
    for number in range(1, MAX_TRIES + 1):
        claimed = store.claim()
        assert claimed is not None
        assert claimed.tries == number
        store.recover()
    assert store.claim() is None
    failed = store.get(job.id, "a")
    assert failed.state == "failed"
    assert str(failed.error).startswith(f"x.png: was begun {MAX_TRIES} times")


def test_a_state_is_left_only_for_one_that_follows(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    store = Store(folder.database)
    job, _ = store.add(submission(folder), Client(name="a"), 9)
    assert not store.finish(job.id, "done")
    claimed = store.claim()
    assert claimed is not None
    assert claimed.id == job.id
    assert store.claim() is None
    assert store.finish(job.id, "done", sha256="1")
    assert not store.finish(job.id, "failed", error="late")
    assert not store.cancel(job.id)
    assert store.put_back(job.id, died=True) is None
    assert store.get(job.id, "a").state == "done"
    assert store.expire(1000, 1000) == []
    assert [one.id for one in store.expire(-1, 1000)] == [job.id]
    assert store.expire(-1, -1) == []
    assert store.counts().total() == 0


def test_other_folders_and_versions(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").touch()
    with pytest.raises(OptionError, match="holds something that no service made"):
        Folder(tmp_path / "mine")
    folder = Folder(tmp_path / "data")
    with pytest.raises(SupirError, match="another service is at work here"):
        Folder(tmp_path / "data")
    Store(folder.database)
    folder.close()
    Folder(tmp_path / "data").close()
    with sqlite3.connect(folder.database) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(ServiceError, match="of version 99"):
        Store(folder.database)
    with sqlite3.connect(tmp_path / "other") as database:
        database.execute("CREATE TABLE x (y)")
    with pytest.raises(ServiceError, match="not the database of a service"):
        Store(tmp_path / "other")
