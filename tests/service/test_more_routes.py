"""What pages and people ask beside jobs: several results at once, what a picture will take, codes, the interface."""

from __future__ import annotations

import io
import logging
import sqlite3
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service import patient
from service.serving import QUICK, Server, picture
from service.test_restart import submission
from supir import image
from supir.options import NOTICE
from supir.service.data_folder import Folder
from supir.service.http.logs import set_up_logs
from supir.service.limits import Client, Limits
from supir.service.store import Store

JSON = {"Content-Type": "application/json"}


def flat(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def made(server: Server) -> list[dict[str, Any]]:
    """Three results, two of photos with one name."""
    with server.client() as client:
        jobs = [
            client.submit(picture(seed), name=name, **QUICK) for seed, name in ((21, "a.png"), (22, "A.png"), (23, "b"))
        ]
        return [client.wait(job).told for job in jobs]


def test_several_results_are_one_zip(server: Server, made: list[dict[str, Any]], tmp_path: Path) -> None:
    ids = [job["id"] for job in made]
    with server.client() as client:
        results = [patient.get(f"{server.url}/v1/jobs/{job}/result").content for job in ids]
        answer = patient.post(f"{server.url}/v1/results", json={"jobs": [*ids, ids[0]], "notice": True})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
        archive = zipfile.ZipFile(io.BytesIO(answer.content))
        names = ["a.restored.png", "A.restored (2).png", "b.restored.png"]
        assert [name for name in archive.namelist() if name.endswith(".png")] == names
        assert [archive.read(name) for name in names] == results
        told = archive.read("a.restored.png.txt").decode()
        assert NOTICE in told
        assert f"sha256 of the file: {made[0]['sha256']}" in told
        assert '"quality"' in told
        assert archive.testzip() is None
        waiting = client.submit(picture(24), **{**QUICK, "num_steps": 1000})
        busy = patient.post(f"{server.url}/v1/results", json={"jobs": [ids[0], waiting.id]})
        assert (busy.status_code, busy.json()["error"]) == (409, "JobNotReadyError")
        client.cancel(waiting)
    assert patient.post(f"{server.url}/v1/results", json={"jobs": ["0" * 32]}).status_code == 404
    assert patient.post(f"{server.url}/v1/results", json={"jobs": []}).status_code == 422
    (tmp_path / "a.png").write_bytes(results[0])
    assert image.read_record(tmp_path / "a.png")["notice"] == NOTICE


def test_the_preset_is_told_and_jobs_are_found_by_words(server: Server, made: list[dict[str, Any]]) -> None:
    assert {job["preset"] for job in made} == {"quality"}
    with server.client() as client:
        cat = client.submit(picture(25), name="Old cat 1950.png", preset="fast", prompt="A grey Cat, 고양이.", **QUICK)
        assert client.wait(cat).told["preset"] == "fast"
    for words, found in (("CAT old", True), ("고양이", True), ("cat 1951", False), ("%", False)):
        jobs = patient.get(f"{server.url}/v1/jobs", params={"search": words}).json()["jobs"]
        assert (cat.id in [job["id"] for job in jobs]) == found, words
        assert len(jobs) == found


def test_what_a_picture_will_come_to(server: Server, made: list[dict[str, Any]]) -> None:
    def plan(width: int, height: int, **options: Any) -> dict[str, Any]:
        address = f"{server.url}/v1/plan?width={width}&height={height}"
        return dict(patient.post(address, json={**QUICK, **options}, timeout=300).raise_for_status().json())

    small, large = plan(48, 32), plan(480, 320, scale=4)
    assert (small["width"], small["height"], small["refused"], small["measured"]) == (48, 32, None, True)
    assert (large["width"], large["height"]) == (1920, 1280)
    assert large["working_width"] >= 1920
    taken = sorted(_seconds(job) for job in made)
    assert taken[0] / 3 <= small["seconds"] <= taken[-1] * 3
    assert large["seconds"] > 20 * small["seconds"]
    refused = plan(6000, 4000, scale=4)
    assert "64 are allowed: lower scale or min_size" in refused["refused"]
    assert (refused["width"], refused["seconds"]) == (24000, None)
    assert patient.post(f"{server.url}/v1/plan?width=0&height=1").status_code == 422


def _seconds(job: dict[str, Any]) -> float:
    from datetime import datetime

    began, ended = (datetime.fromisoformat(job[name]) for name in ("started", "finished"))
    return (ended - began).total_seconds()


def test_a_preview_at_screen_size(server: Server) -> None:
    form = {"until": "preview", "preview_side": "64", "options": '{"scale": 4, "min_size": 32}'}
    with server.client() as client:
        answer = patient.post(f"{server.url}/v1/jobs", data=form, files={"file": ("a.png", picture(26, 128, 96))})
        job = client.wait(client.get(answer.json()["id"]))
        assert job.told["options"]["scale"] == 0.5
        assert Image.open(io.BytesIO(client.result(job))).size == (64, 48)
        large = {**form, "options": '{"scale": 32, "min_size": 32}'}  # whose result nobody might ask for
        answer = patient.post(f"{server.url}/v1/jobs", data=large, files={"file": ("b.png", flat(1200, 800))})
        assert answer.status_code == 202, answer.text
        client.delete(client.get(answer.json()["id"]))


def test_a_code_that_is_read(server: Server) -> None:
    pytest.importorskip("segno")
    address = "http://192.168.1.20:8190/#key=supir_abc"
    answer = patient.post(f"{server.url}/v1/code", json={"text": address})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
    assert answer.text.startswith("<svg")
    for wrong in ('{"text": "\\ud800"}', '{"text": ""}', f'{{"text": "{"x" * 501}"}}'):
        assert patient.post(f"{server.url}/v1/code", content=wrong, headers=JSON).status_code == 422


def test_a_history_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    Store(folder.database).close()
    with sqlite3.connect(folder.database) as database:
        for column in ("preset", "audit", "audited", "crop"):
            database.execute(f"ALTER TABLE job DROP COLUMN {column}")
        database.execute("PRAGMA user_version = 3")
    store = Store(folder.database)
    job, _ = store.add(submission(folder, preset="fast"), Client(name="a"), 9)
    assert store.get(job.id, "a").preset == "fast"


def test_the_same_is_found_while_it_is_there(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    store = Store(folder.database)
    client = Client(name="a", limits=Limits())
    job, _ = store.add(submission(folder, digest="1"), client, 9)
    assert store.same("a", "2") is None
    assert store.same("b", "1") is None
    found = store.same("a", "1")
    assert found is not None
    assert found.id == job.id
    store.cancel(job.id)
    assert store.same("a", "1") is None


def test_a_log_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    root, ours = logging.getLogger(), logging.getLogger("supir.service")
    before = root.handlers, root.level, ours.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        set_up_logs(form="text")
        ours.info("job ended", extra={"job": "7f", "seconds": 3.25, "name_given": "old cat\n2026 forged.png"})
        ours.warning("disk is full")
    finally:
        root.handlers, root.level = before[0], before[1]
        ours.setLevel(before[2])
    first, second = stream.getvalue().splitlines()
    assert first[19:] == ' job ended  job=7f seconds=3.25 name_given="old cat\\n2026 forged.png"'
    assert second[19:] == " warning: disk is full"


def test_the_interface_for_people(server: Server) -> None:
    page = patient.get(f"{server.url}/api")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("reference.js", "reference.css"):
        assert name in page.text
        assert patient.get(f"{server.url}/{name}").status_code == 200
