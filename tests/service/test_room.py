"""The service's disk full, its database locked: what is kept is read and deleted, the rest waits, and all goes on."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service import patient
from service.serving import QUICK, Server, picture, until
from service.test_restart import submission
from small_disk import fill, small_disk
from supir.errors import BusyError, JobNotFoundError, NoRoomError, StorageError
from supir.service import store as store_module
from supir.service.data_folder import Folder
from supir.service.database import SERVICE
from supir.service.disk_room import RESERVE, Room
from supir.service.limits import Client
from supir.service.store import Store

KEY = Client(name="a")
PATIENCE = 300.0
"""Seconds for a worker to open its weights, and to make a picture, whatever else the machine does."""
BEGUN, ENDED = "nothing new is taken", "there is room again"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Folder, Store]]:
    """A store that waits for nobody."""
    monkeypatch.setattr(store_module, "SERVICE", dataclasses.replace(SERVICE, patience=0.01))
    folder = Folder(tmp_path / "data")
    store = Store(folder.database)
    yield folder, store
    store.close()
    folder.close()


def added(folder: Folder, store: Store, state: str = "queued") -> str:
    job = store.add(submission(folder), KEY, 99)[0].id
    folder.upload(job).touch()
    if state != "queued":
        store.claim()
        store.finish(job, state)
    return job


def test_what_ends_while_the_database_is_locked_has_ended(kept: tuple[Folder, Store]) -> None:
    folder, store = kept
    expired, gone, cancelled, left = (added(folder, store, state) for state in ("done", "done", "queued", "queued"))
    with closing(sqlite3.connect(folder.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for refused in (store.claim, store.pay, lambda: store.delete(gone), lambda: store.cancel(cancelled)):
            with pytest.raises(StorageError, match="another process has locked it"):
                refused()
        store.owe(gone, None)
        store.owe(cancelled, "cancelled")
        assert [job.id for job in store.expire(-1, 1000)] == [expired]
        assert {job.id: job.state for job in store.page("a", 9)} == {
            expired: "expired", cancelled: "cancelled", left: "queued"
        }  # fmt: skip
        assert [job.id for job in store.page("a", 9, state="cancelled")] == [], "which it was not when it was asked for"
        assert store.positions() == {left: 0}
        assert store.get(cancelled, "a").finished is not None
        with pytest.raises(JobNotFoundError):
            store.get(gone, "a")
        other.execute("ROLLBACK")
    claimed = store.claim()  # with which all is written down
    assert claimed is not None
    assert claimed.id == left
    with closing(sqlite3.connect(folder.database)) as other:
        rows = dict(other.execute("SELECT id, state FROM job"))
    assert rows == {expired: "expired", cancelled: "cancelled", left: "running"}


def test_what_was_owed_at_a_kill_is_known_by_the_missing_files(kept: tuple[Folder, Store]) -> None:
    folder, store = kept
    done, gone, queued, cancelled = (added(folder, store, state) for state in ("done", "done", "queued", "queued"))
    folder.remove(gone)
    folder.abandon(cancelled)
    folder.done(done)  # a job that is done needs no upload
    store.forget_missing(folder.kept())
    assert {job.id for job in store.page("a", 9)} == {done, queued}


def test_a_full_database_is_told_from_a_damaged_one(kept: tuple[Folder, Store]) -> None:
    folder, store = kept
    job = added(folder, store)
    with store._database.writing() as database:
        [[pages]] = database.execute("PRAGMA page_count")
        database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(NoRoomError, match="the disk is full"):
        [added(folder, store) for _ in range(99)]
    assert store.get(job, "a").state == "queued"
    shutil.copyfile(__file__, folder.path / "other")
    with pytest.raises(Exception, match="the database cannot be used: file is not a database") as caught:
        Store(folder.path / "other")
    assert not isinstance(caught.value, StorageError)


def test_a_disk_that_fills_up_and_empties(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free, changes = [RESERVE], []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free[0]))
    monkeypatch.setattr("supir.service.disk_room._LOOK_AGAIN", 0.01)
    room = Room(tmp_path, lambda: None, lambda: changes.append(room.trouble))
    with caplog.at_level(logging.INFO, "supir.service"):
        room.start()
        until((tmp_path / "reserve").exists)
        assert (tmp_path / "reserve").stat().st_size == RESERVE
        for _ in range(3):
            free[0] = RESERVE - 1
            with pytest.raises(NoRoomError, match="nothing new is taken until there is room again") as caught:
                room.check()
            assert caught.value.retry_after == 10
            free[0] = RESERVE
            until(lambda: room.trouble is None)
        until(lambda: len(changes) == 3)
        room.close()
    said = [record.message for record in caplog.records]
    assert said.count(BEGUN) == 1, "a disk at its brim does not fill the log as well"
    assert [path.name for path in tmp_path.iterdir()] == ["reserve"]


def test_connections_are_kept(kept: tuple[Folder, Store]) -> None:
    folder, store = kept
    job = added(folder, store)
    opened: list[Any] = []
    connect = sqlite3.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *given, **more: opened.append(given) or connect(*given, **more))
        for _ in range(50):
            store.get(job, "a")
            store.positions()
            store.pay()
        with pytest.raises(BusyError):
            store.add(submission(folder), KEY, 1)  # what has failed is taken back, and in nobody's way
        assert store.claim() is not None
    assert opened == []


def ask(server: Server, method: str, path: str, **more: Any) -> httpx2.Response:
    return patient.request(method, server.url + path, **more)


def submitted(server: Server, seed: int = 0, **options: Any) -> httpx2.Response:
    form = {name: str(value) for name, value in {**QUICK, **options, "seed": seed}.items()}
    return ask(server, "POST", "/v1/jobs", data=form, files={"file": ("photo.png", picture(seed))})


def ended(server: Server, job: str) -> str:
    until(lambda: ask(server, "GET", f"/v1/jobs/{job}").json()["state"] not in ("queued", "running"), PATIENCE)
    return str(ask(server, "GET", f"/v1/jobs/{job}").json()["state"])


def is_ready(server: Server) -> bool:
    return ask(server, "GET", "/health/ready").status_code == 200


def reads_go_on(server: Server, done: str) -> None:
    for path in ("/v1/jobs", f"/v1/jobs/{done}", f"/v1/jobs/{done}/result", f"/v1/jobs/{done}/preview", "/v1/options",
                 "/metrics", "/health"):  # fmt: skip
        assert ask(server, "GET", path).status_code == 200, path
    assert "supir_room 0.0" in ask(server, "GET", "/metrics").text
    health = ask(server, "GET", "/health/ready")
    assert (health.status_code, health.json()["ready"]) == (503, False)
    assert "nothing new is taken until" in health.json()["reason"]


def new_ones_are_refused(server: Server, status: int, error: str) -> None:
    before = {path.name for path in (server.data / "jobs").iterdir()}
    for _ in range(3):
        answer = submitted(server, 9)
        assert (answer.status_code, answer.json()["error"], answer.headers["Retry-After"]) == (status, error, "10")
        assert str(server.data) not in answer.text
    assert {path.name for path in (server.data / "jobs").iterdir()} == before


def all_goes_on(server: Server) -> None:
    until(lambda: is_ready(server), PATIENCE)
    assert ended(server, submitted(server, 5).raise_for_status().json()["id"]) == "done"


def rows(server: Server) -> set[str]:
    with closing(sqlite3.connect(server.data / "service.sqlite")) as database:
        return {str(job) for (job,) in database.execute("SELECT id FROM job")}


@pytest.mark.slow
def test_a_small_disk_filled_under_the_service_and_its_database_locked(model: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path, 12) as disk:
        server = Server(tmp_path, model, "--data", disk / "data")
        server.data = disk / "data"
        try:
            until(lambda: is_ready(server), PATIENCE)
            first, second, third = (submitted(server, seed).json()["id"] for seed in range(3))
            assert [ended(server, job) for job in (first, second, third)] == ["done"] * 3

            filler = fill(disk)
            reads_go_on(server, first)
            new_ones_are_refused(server, 507, "NoRoomError")
            assert ask(server, "DELETE", f"/v1/jobs/{first}").status_code == 204
            assert ask(server, "GET", f"/v1/jobs/{first}").status_code == 404
            assert not (server.data / "jobs" / first).exists()
            until(lambda: first not in rows(server))  # for which the reserve is there
            filler.unlink()
            all_goes_on(server)

            with closing(sqlite3.connect(server.data / "service.sqlite", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                assert submitted(server, 9).status_code == 503
                reads_go_on(server, second)
                new_ones_are_refused(server, 503, "StorageError")
                assert ask(server, "DELETE", f"/v1/jobs/{second}").status_code == 204
                assert ask(server, "GET", f"/v1/jobs/{second}/result").status_code == 404
                assert second in rows(server)
                other.execute("ROLLBACK")
            all_goes_on(server)
            assert second not in rows(server)
            assert ask(server, "GET", f"/v1/jobs/{third}/result").status_code == 200
            assert [len(server.lines(event)) for event in (BEGUN, ENDED)] == [2, 2]
            assert server.lines("mistake of ours") == []
        finally:
            assert server.stop() == 0


@pytest.mark.slow
def test_a_disk_that_fills_up_under_jobs_at_work(model: Path, tmp_path: Path) -> None:
    """They wait for room, over a stop and a start on the full disk, and are done when it is there."""
    with small_disk(tmp_path, 12, journaled=True) as disk:
        server = Server(tmp_path, model, "--data", disk / "data", "--grace", 0)
        server.data = disk / "data"

        def told(job: str) -> dict[str, Any]:
            return dict(ask(server, "GET", f"/v1/jobs/{job}").json())

        until(lambda: is_ready(server), PATIENCE)
        done = submitted(server).json()["id"]
        assert ended(server, done) == "done"
        running, queued = (submitted(server, seed, num_steps=100).json()["id"] for seed in (1, 2))
        until(lambda: told(running)["step"], PATIENCE)
        filler = fill(disk)
        until(lambda: told(running)["state"] == "queued", PATIENCE)
        assert told(running)["waits_for"] == told(queued)["waits_for"] == "room on the disk"
        reads_go_on(server, done)
        assert server.stop() == 0
        server.start()
        reads_go_on(server, done)
        new_ones_are_refused(server, 507, "NoRoomError")
        filler.unlink()
        assert [ended(server, job) for job in (running, queued)] == ["done", "done"]
        all_goes_on(server)
        assert server.stop() == 0
        assert server.lines("mistake of ours") == []
        assert len(server.lines(BEGUN)) <= 3
