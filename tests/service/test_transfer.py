"""Workers that share no folder with the service, here a process that is told so: pictures travel with their jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from one_thread import one_thread_in_processes_too
from service.serving import LONG, QUICK, picture, restored, until
from service.test_restart import submission
from supir.jobs.model import Model
from supir.options import restore_options
from supir.options.audit import AuditOptions
from supir.pool import Processes
from supir.service.engine import Engine
from supir.service.limits import Client
from supir.service.stored_job import StoredJob

KEY = Client(name="a")


class Apart(Processes):
    shared_folders = False


@pytest.fixture
def engine(model: Path, tmp_path: Path) -> Iterator[Engine]:
    with one_thread_in_processes_too() as patch:
        (tmp_path / "temporary").mkdir()
        patch.setenv("TMPDIR", str(tmp_path / "temporary"))
        running = Engine(tmp_path / "data", Model(folder=model, devices=("cpu",)), runner=Apart(1))
        running.start()
        yield running
        running.close(0)


def handed_in(engine: Engine, data: bytes, audit: AuditOptions | None = None, **options: Any) -> StoredJob:
    new = submission(engine.folder, options=restore_options(**options), audit=audit)
    engine.folder.upload(new.id).write_bytes(data)
    return engine.submit(new, KEY)[0]


def state(engine: Engine, job: StoredJob) -> str:
    return engine.store.get(job.id, KEY.name).state


@pytest.mark.slow
def test_results_previews_and_fractions_come_back(engine: Engine, pipeline: Any, tmp_path: Path) -> None:
    progress: list[tuple[int, bool]] = []
    there: list[bool] = []
    shares: list[float] = []
    job = handed_in(engine, picture(1), **QUICK)

    def hear(told: StoredJob | None) -> None:
        if told is not None and state(engine, job) == "running":
            where = engine.progress(engine.store.get(job.id, KEY.name))
            progress.append((where.step or 0, where.preview))
            shares.append(where.share or 0.0)
            there.append(not where.preview or engine.folder.preview(job.id).exists())

    engine.listen(hear)
    until(lambda: state(engine, job) == "done")
    assert engine.folder.result(job.id, ".png").read_bytes() == restored(pipeline, picture(1), tmp_path, **QUICK)
    assert engine.folder.preview(job.id).read_bytes().startswith(b"\x89PNG")
    assert progress == sorted(progress)
    assert progress[0] == (0, False)
    assert (0, True) in progress, "the preview is there before the first step"
    assert all(there), "it is told of when it can be fetched"
    assert 0 <= shares[0] < shares[-1] <= 1
    bad = handed_in(engine, picture(1)[:-500] + b"\0" * 500, **QUICK)
    until(lambda: state(engine, bad) == "failed")
    said = str(engine.store.get(bad.id, KEY.name).error)
    assert said.startswith("x.png: damaged or truncated")
    left = [path for path in (tmp_path / "temporary").iterdir() if path.name != ".ses"]  # a library's, 51 bytes
    assert left == [], "nothing is left where it was restored"


@pytest.mark.slow
def test_reports_and_overlays_come_back(engine: Engine) -> None:
    job = handed_in(engine, picture(1), AuditOptions(letters=False), **QUICK)
    until(lambda: state(engine, job) == "done", 300)
    done = engine.store.get(job.id, KEY.name)
    report, overlay = engine.folder.finished_audit(done)
    assert done.audited is not None
    assert json.loads(report.read_text())["says"] == done.audited["says"]
    assert overlay.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_cancelled_job_is_left_and_a_killed_worker_replaced(engine: Engine) -> None:
    job = handed_in(engine, picture(1), **LONG)
    until(lambda: (engine.progress(engine.store.get(job.id, KEY.name)).step or 0) > 0)
    engine.cancel(job)
    until(lambda: not engine._active)
    until(lambda: not engine.folder.upload(job.id).parent.exists())
    again = handed_in(engine, picture(1), **{**QUICK, "num_steps": 100})
    until(lambda: (engine.progress(engine.store.get(again.id, KEY.name)).step or 0) > 0)
    engine._active[again.id].worker.kill()  # type: ignore[union-attr]
    until(lambda: state(engine, again) == "done", 300)
    assert engine.store.get(again.id, KEY.name).tries == 2
