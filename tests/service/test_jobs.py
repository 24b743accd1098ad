"""A picture's way through a running service: the same bytes as from the library, and what may be done meanwhile."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from service import patient
from service.serving import LONG, QUICK, Server, picture, restored, until
from supir import image
from supir.client import Client
from supir.errors import JobFailedError, JobNotFoundError, JobNotReadyError, OptionError, ServiceError
from supir.service.validation import shown_name


def test_the_result_is_what_the_library_makes(server: Server, pipeline: Any, tmp_path: Path) -> None:
    data, options = picture(1), {**QUICK, "seed": 7, "prompt": "a cat"}
    with server.client() as client:
        job = client.submit(data, name="cat.png", **options)
        events = list(client.events(job))
        kinds = [event.kind for event in events]
        assert kinds[0] in ("queued", "running")
        assert kinds[-1] == "done"
        assert set(kinds) <= {"queued", "running", "preview", "step", "progress", "done"}
        assert kinds.index("preview") < len(kinds) - 1
        done = client.wait(job)
        assert client.result(job) == restored(pipeline, data, tmp_path, **options)
        (tmp_path / "source").write_bytes(data)
        image.write(pipeline.preview(tmp_path / "source", pipeline.options(**options)), tmp_path / "preview.png")
        np.testing.assert_array_equal(Image.open(io.BytesIO(client.preview(job))), Image.open(tmp_path / "preview.png"))
        assert done.told["options"]["seed"] == 7
        assert client.save(job, tmp_path / "saved.png").read_bytes() == client.result(job)
        until(lambda: server.times_done(job.id) == 1)
        assert not (server.data / "jobs" / job.id / "upload").exists()


def test_an_option_without_effect_is_told_in_the_answer(server: Server) -> None:
    with server.client() as client:
        job = client.submit(picture(9), **QUICK, negative_prompt="blur", eta=0.5)
        first, second = job.told["warnings"]
        assert first.startswith("negative_prompt 'blur' has no effect: text guidance is 1 in every step")
        assert second.startswith("eta 0.5 has no effect")
        assert client.submit(picture(9), **QUICK).told["warnings"] == []
        client.wait(job)
        assert client.get(job).told["options"]["text_guidance_start"] is None, "the end alone was set"


def test_the_preview_comes_before_the_result_and_cancelling_stops(server: Server) -> None:
    with server.client() as client:
        job, behind = client.submit(picture(2), **LONG), client.submit(picture(3), **LONG)
        asked = False
        for event in client.events(job):
            if event.kind == "preview":
                assert Image.open(io.BytesIO(client.preview(job))).size == (48, 32)
            if event.kind == "step" and not asked:
                asked = True
                assert client.get(behind).position == 0
                with pytest.raises(JobNotReadyError, match="running"):
                    client.result(job)
                assert client.cancel(behind).state == "cancelled"
                client.cancel(job)
        assert event.kind == "cancelled"
        assert client.get(job).state == "cancelled"
        with pytest.raises(JobFailedError, match="cancelled"):
            client.result(job)
        assert client.cancel(job).state == "cancelled"
        until(lambda: not (server.data / "jobs" / job.id).exists())  # when its worker has left it
        assert client.wait(client.submit(picture(4), **QUICK)).state == "done"
        assert len(server.lines("worker ready")) == 1, "the worker lives on"


def test_deleting_one_at_work_and_one_that_is_done(server: Server) -> None:
    with server.client() as client:
        job, asked = client.submit(picture(5), **LONG), False
        for event in client.events(job):
            if event.kind == "step" and not asked:
                asked = True
                client.delete(job)
        assert (event.kind, event.job) == ("deleted", None)
        done = client.wait(client.submit(picture(6), **QUICK))
        client.delete(done)
        for gone in (job, done):
            with pytest.raises(JobNotFoundError):
                client.get(gone)
            until(lambda gone=gone: not (server.data / "jobs" / gone.id).exists())  # type: ignore[misc]


def test_the_same_key_gives_the_same_job(server: Server) -> None:
    with server.client() as client:
        first = client.submit(picture(7), idempotency_key="once", **QUICK)
        assert client.submit(picture(7), idempotency_key="once", **QUICK).id == first.id
        client.wait(first)
        assert client.submit(picture(7), idempotency_key="once", **QUICK).id == first.id
        assert client.submit(picture(7), idempotency_key="twice", **QUICK).id != first.id
        for changed in ({**QUICK, "seed": 1}, {**QUICK, "format": "jpeg"}):
            with pytest.raises(OptionError, match="came with another picture or other options"):
                client.submit(picture(7), idempotency_key="once", **changed)
        with pytest.raises(OptionError, match="came with another picture"):
            client.submit(picture(8), idempotency_key="once", **QUICK)


def test_form_fields_are_options_beside_the_object(server: Server, pipeline: Any, tmp_path: Path) -> None:
    fields = {
        "options": '{"seed": 3, "scale": null}',
        "preset": "fast",
        "format": "jpeg",
        "restoration_guidance": "off",
    }
    fields |= {name: str(value) for name, value in QUICK.items()}
    answer = patient.post(f"{server.url}/v1/jobs", data=fields, files={"file": ("a.png", picture(9))})
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert answer.url.join(answer.headers["Location"]).path == f"/v1/jobs/{told['id']}"
    assert (told["options"]["solver"], told["options"]["restoration_guidance"]) == ("dpmpp_2m", None)
    with server.client() as client:
        client.wait(told["id"])
        made = client.result(told["id"])
    options = {**QUICK, "seed": 3, "restoration_guidance": "off"}
    assert made == restored(pipeline, picture(9), tmp_path, ".jpg", preset="fast", **options)


def test_pages_of_jobs(server: Server) -> None:
    with server.client() as client:
        made = [client.submit(picture(20 + number), **QUICK).id for number in range(3)]
        assert [job.id for job in client.jobs()][:3] == made[::-1]
        page = patient.get(f"{server.url}/v1/jobs", params={"limit": 2}).json()
        assert ([job["id"] for job in page["jobs"]], page["next"]) == (made[:0:-1], made[1])
        page = patient.get(f"{server.url}/v1/jobs", params={"limit": 2, "before": page["next"]}).json()
        assert page["jobs"][0]["id"] == made[0]
        client.wait(made[-1])
        assert {job.state for job in client.jobs(state="done")} == {"done"}


def test_a_preview_alone(server: Server) -> None:
    with server.client() as client:
        job = client.wait(client.submit(picture(28), name="a.jpg", until="preview", **QUICK))
        whole = client.wait(client.submit(picture(28), **QUICK))
        assert client.result(job) == client.preview(job) == client.preview(whole)
        until(lambda: [path.name for path in (server.data / "jobs" / job.id).iterdir()] == ["result.png"])
        with pytest.raises(OptionError, match="until is 'step'; it must be one of result, preview"):
            client.submit(picture(28), until="step", **QUICK)


def test_nothing_is_kept_for_people_who_do_not_watch(server: Server) -> None:
    with server.client() as client:
        job = client.wait(client.submit(picture(29), **QUICK))
    for method, path in (("POST", "again"), ("GET", "views/input"), ("GET", "views/thumbnail")):
        answer = patient.request(method, f"{server.url}/v1/jobs/{job.id}/{path}")
        assert (answer.status_code, answer.json()["error"]) == (410, "JobExpiredError")
    kept = {"preview.png", "result.png"}
    until(lambda: {path.name for path in (server.data / "jobs" / job.id).iterdir()} == kept)
    assert patient.get(server.url).status_code == 404  # nor is there a page


def test_names_are_text_alone(server: Server) -> None:
    with server.client() as client:
        for name, shown in (
            ("../../../etc/passwd", "passwd.restored.png"),
            ("a\\..\\b\u202egnp.png", "bgnp.restored.png"),
            ("ö x.png", "ö x.restored.png"),
        ):
            job = client.wait(client.submit(picture(30), name=name, **QUICK))
            told = patient.get(f"{server.url}/v1/jobs/{job.id}/result").headers["content-disposition"]
            assert told.startswith("attachment; ")
            assert httpx2.URL("http://x/?a=" + told.partition("UTF-8''")[2]).params["a"] == shown
            assert told.isascii()
    names = {path.name for path in server.data.rglob("*") if path.is_file()}
    assert names <= {"upload", "preview.png", "result.png", "result.jpg", "result.audit.json", "result.audit.png"} | {
        "service.lock", "service.sqlite", "service.sqlite-wal", "service.sqlite-shm",
        "reserve",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "shown"),
    [("a\r\nX: y.png", "aX: y.png"), ("\0", "picture"), ("..", "picture"), (None, "picture"), ("a\ud800b", "ab"),
     ("/x/", "picture"), ("x" * 999, "x" * 150), ("a/\u202egnp.exe", "gnp.exe")],
)  # fmt: skip
def test_what_is_left_of_a_name(given: str | None, shown: str) -> None:
    assert shown_name(given) == shown


def test_health_and_figures(server: Server) -> None:
    with server.client() as client:
        client.wait(client.submit(picture(31), **QUICK))
    health = patient.get(f"{server.url}/health/ready")
    assert (health.status_code, health.json()["workers_ready"]) == (200, 1)
    text = patient.get(f"{server.url}/metrics").text
    assert 'supir_jobs{state="running"} 0.0' in text
    [done] = [line for line in text.splitlines() if line.startswith('supir_jobs_ended_total{state="done"}')]
    assert float(done.split()[-1]) >= 1


def test_nothing_private_is_logged(server: Server) -> None:
    with server.client() as client:
        client.wait(client.submit(picture(32), name="heliotrope.png", prompt="amberjack", **QUICK))
    log = (server.folder / "log").read_text()
    assert '"event": "job ended"' in log
    assert "heliotrope" not in log
    assert "amberjack" not in log


def test_pages_of_others_are_refused(server: Server) -> None:
    assert patient.get(f"{server.url}/health", headers={"Host": "evil.example"}).status_code == 403
    assert patient.get(f"{server.url}/health", headers={"Origin": "http://evil.example"}).status_code == 403
    assert patient.get(f"{server.url}/health", headers={"Origin": server.url}).status_code == 200


def test_the_client_is_light_and_says_what_is_wrong() -> None:
    code = "import sys, supir.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "numpy", "PIL", "pyvips", "fastapi", "diffusers"}
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceError, match="cannot be reached"):
        client.options()
    code = "import sys; sys.modules['httpx2'] = None\nimport supir.client"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("pip install 'supir[client]'")
