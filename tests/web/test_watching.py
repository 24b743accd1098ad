"""What the service has for people who watch: previews alone, the same photo once more, views, news of all jobs."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image, ImageCms

from service import patient
from service.serving import LONG, QUICK, picture, until
from supir import image
from supir.errors import JobNotFoundError, OptionError
from supir.jobs.job import Job, Outcome, Views
from supir.jobs.model import Model
from supir.jobs.restoring import OpenModel, restore_job
from supir.options.crop import Crop
from supir.pipeline import SupirPipeline
from supir.pool import Done, Processes
from supir.restoration import step_preview as glimpses
from supir.restoration import streaming
from supir.sampling.solvers import Step
from web.site import WebServer, gradient

pytestmark = pytest.mark.slow  # minutes in a browser; the way through the page is in test_page.py


@pytest.fixture
def tidy(server: WebServer) -> Iterator[None]:
    yield
    for job in server.jobs():
        server.delete(job["id"])


def opened(server: WebServer, path: str) -> Image.Image:
    answer = patient.get(server.url + path)
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


@pytest.mark.usefixtures("tidy")
def test_a_preview_alone_is_that_of_the_library(server: WebServer, model: Path, tmp_path: Path) -> None:
    data = gradient()
    job = server.submit(data, scale=2.0)
    assert (job["state"], job["until"], job["format"], job["source"]) == ("done", "preview", ".png", job["id"])
    (tmp_path / "source").write_bytes(data)
    pipeline = SupirPipeline.from_pretrained(model)
    expected = pipeline.preview(tmp_path / "source", pipeline.options(**{**QUICK, "scale": 2.0}))
    image.write(expected, tmp_path / "preview.png")
    for path in ("preview", "result", "views/result"):
        np.testing.assert_array_equal(
            opened(server, f"/v1/jobs/{job['id']}/{path}"), Image.open(tmp_path / "preview.png")
        )


@pytest.mark.usefixtures("tidy")
def test_a_part_of_a_photo_is_previewed_once(server: WebServer, model: Path, tmp_path: Path) -> None:
    data, crop = gradient(200, 160), (40, 30, 96, 80)
    photo = server.submit(data, scale=0.5)
    asked = {"until": "preview", "crop": ",".join(map(str, crop)), "reuse": "true"}
    again, options = f"{server.url}/v1/jobs/{photo['id']}/again", {**QUICK, "scale": 2.0}
    first, second = (patient.post(again, params=asked, json=options) for _ in range(2))
    assert (first.status_code, second.status_code, first.json()["id"]) == (202, 200, second.json()["id"]), first.text
    job = server.ended(first.json()["id"])
    assert (job["state"], job["until"], job["crop"], job["source"]) == ("done", "preview", [*crop], photo["id"])
    (tmp_path / "source").write_bytes(data)
    pipeline = SupirPipeline.from_pretrained(model)
    pipeline.preview_crop(tmp_path / "source", tmp_path / "part.png", Crop(*crop), pipeline.options(**options))
    found = opened(server, f"/v1/jobs/{job['id']}/result")
    assert found.size == (192, 160)
    np.testing.assert_array_equal(found, Image.open(tmp_path / "part.png"))
    files = {path.name for path in (server.data / "jobs" / job["id"]).iterdir()}
    assert files == {"upload", "result.png"}  # nothing else of the whole photo is made
    with server.client() as client:
        other = client.wait(client.again(photo["id"], until="preview", crop=(0, 0, 64, 48), **options))
        sent = client.wait(client.submit(data, until="preview", crop=(0, 0, 64, 48), **options))
        assert other.sha256 == sent.sha256 != job["sha256"]
        assert photo["crop"] is None
        assert other.told["crop"] == [0, 0, 64, 48]


@pytest.mark.parametrize(
    ("asked", "options", "said"),
    [
        ({"crop": "0,0,64,64"}, {}, "is shown of a preview alone: add until=preview"),
        ({"until": "preview", "crop": "0,0,64"}, {}, "it must be left,top,width,height in whole pixels"),
        ({"until": "preview", "crop": "0,0,0,64"}, {}, "which is empty"),
        ({"until": "preview", "crop": "40,0,57,64"}, {}, "must lie within the photo, which has 96 x 64 pixels"),
        ({"until": "preview", "crop": "0,0,96,64"}, {"scale": 16}, "409600 are allowed: ask for less"),
        ({"until": "preview", "crop": "0,0,64,64"}, {"reference_quirks": True}, "with reference_quirks a preview is"),
        ({"until": "preview", "crop": "0,0,64,64"}, {"region": "0,0,9,9; protect"}, "with region a preview is"),
    ],
)
@pytest.mark.usefixtures("tidy")
def test_parts_that_are_refused(server: WebServer, asked: dict[str, str], options: dict[str, Any], said: str) -> None:
    form = {**asked, "options": json.dumps({**QUICK, **options})}
    answer = patient.post(f"{server.url}/v1/jobs", data=form, files={"file": ("a.png", gradient())})
    assert (answer.status_code, answer.json()["error"]) == (422, "OptionError")
    assert said in answer.json()["detail"]
    assert list((server.data / "jobs").iterdir()) == []


def test_a_part_is_as_large_as_in_the_result(server: WebServer) -> None:
    form = {"until": "preview", "crop": "0,0,64,64", "preview_side": "64"}
    answer = patient.post(f"{server.url}/v1/jobs", data=form, files={"file": ("a.png", gradient())})
    assert (answer.status_code, "leave out preview_side" in answer.json()["detail"]) == (422, True)


@pytest.mark.usefixtures("tidy")
def test_previews_go_before_results(server: WebServer) -> None:
    photo = server.submit(picture(1))["id"]
    long, waiting = (server.again(photo, **LONG).json()["id"] for _ in range(2))
    until(lambda: server.get(long)["state"] == "running")
    form = {"until": "preview", "options": json.dumps(QUICK)}
    late = patient.post(f"{server.url}/v1/jobs", data=form, files={"file": ("a.png", picture(2))}).json()
    assert (late["position"], server.get(waiting)["position"]) == (0, 1)
    patient.post(f"{server.url}/v1/jobs/{long}/cancel")
    assert server.ended(late["id"])["started"] < (server.get(waiting)["started"] or "9")
    patient.post(f"{server.url}/v1/jobs/{waiting}/cancel")


@pytest.mark.usefixtures("tidy")
def test_the_same_photo_once_more(server: WebServer) -> None:
    photo = server.submit(picture(1), name="cat.png")
    answer = server.again(photo["id"], seed=3)
    assert answer.status_code == 202
    first = server.ended(answer.json()["id"])
    assert (first["name"], first["source"], first["state"], first["options"]["seed"]) == (
        "cat.png",
        photo["id"],
        "done",
        3,
    )
    second = server.ended(server.again(first["id"], seed=3).json()["id"])  # of a result as well
    assert (second["source"], second["sha256"]) == (photo["id"], first["sha256"])
    headers = {"Idempotency-Key": "once"}
    path = f"{server.url}/v1/jobs/{photo['id']}/again?format=jpeg"
    one, two = (patient.post(path, json=QUICK, headers=headers) for _ in range(2))
    assert (one.status_code, two.status_code, one.json()["id"]) == (202, 200, two.json()["id"])
    assert server.ended(one.json()["id"])["format"] == ".jpg"
    server.delete(photo["id"])
    assert server.again(first["id"]).status_code == 202  # which has the photo still
    assert server.again(photo["id"]).status_code == 404


@pytest.mark.usefixtures("tidy")
def test_the_client_asks_once_more(server: WebServer) -> None:
    with server.client() as client:
        first = client.wait(client.submit(picture(1), name="cat.png", **QUICK))
        second = client.again(first, format="jpeg", idempotency_key="twice", **QUICK, seed=3)
        assert client.again(first, format="jpeg", idempotency_key="twice", **QUICK, seed=3).id == second.id
        done = client.wait(second)
        assert (done.name, done.told["format"], done.told["options"]["seed"]) == ("cat.png", ".jpg", 3)
        assert client.result(done).startswith(b"\xff\xd8")
        with pytest.raises(OptionError, match="scale is 99"):
            client.again(first, scale=99)
        client.delete(first)
        with pytest.raises(JobNotFoundError):
            client.again(first)


@pytest.mark.parametrize(
    ("request_of", "status", "said"),
    [
        ({"json": {"scale": 99}}, 422, "scale is 99; it must be a number from"),
        ({"json": {"scale": 32, "min_size": 9999}}, 422, "megapixels; 64 are allowed"),
        ({"json": ["scale"]}, 422, "options is not a JSON object"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "options is not JSON"),
        ({"content": b"{}", "headers": {"Content-Type": "text/plain"}}, 422, "must be application/json"),
        ({"content": b"\xff\xfe", "headers": {"Content-Type": "application/json"}}, 422, "not UTF-8"),
        ({"content": b"[" * 200_000, "headers": {"Content-Type": "application/json"}}, 422, "bytes"),
        ({"json": {}, "params": {"format": "gif"}}, 422, "format"),
    ],
)
@pytest.mark.usefixtures("tidy")
def test_wrong_requests_once_more(server: WebServer, request_of: dict[str, Any], status: int, said: str) -> None:
    photo = server.submit(picture(1))["id"]
    kept = {path.name for path in (server.data / "jobs").iterdir()}
    answer = patient.post(f"{server.url}/v1/jobs/{photo}/again", **request_of)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
    assert {path.name for path in (server.data / "jobs").iterdir()} <= kept


@pytest.mark.usefixtures("tidy")
def test_what_browsers_do_not_show_is_shown_all_the_same(server: WebServer) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    stream = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 255, (48, 32), dtype=np.uint8)
    Image.fromarray(values).save(stream, "TIFF", exif=exif)
    photo = server.submit(stream.getvalue(), name="scan.tif")
    job = server.ended(server.again(photo["id"]).json()["id"])
    assert job["format"] == ".tif"
    views = f"/v1/jobs/{job['id']}/views"
    np.testing.assert_array_equal(opened(server, f"{views}/input"), np.rot90(values, -1))
    shown, result = opened(server, f"{views}/result"), opened(server, f"/v1/jobs/{job['id']}/result")
    assert (shown.format, result.format) == ("PNG", "TIFF")
    np.testing.assert_array_equal(shown, result)
    assert opened(server, f"{views}/thumbnail").format == "JPEG"
    assert patient.get(f"{server.url}{views}/step").status_code == 410
    assert patient.get(f"{server.url}{views}/upload").status_code == 422


@pytest.mark.usefixtures("tidy")
def test_news_of_all_jobs(server: WebServer) -> None:
    photo = server.submit(picture(1))["id"]
    long = server.again(photo, **LONG).json()["id"]
    heard: list[tuple[str, str]] = []

    def listen() -> None:
        with patient.stream("GET", f"{server.url}/v1/events") as answer:
            kind = ""
            for line in answer.iter_lines():
                kind = line.removeprefix("event: ") if line.startswith("event: ") else kind
                if line.startswith("data: "):
                    heard.append((kind, json.loads(line.removeprefix("data: "))["id"]))
                    if kind == "deleted":
                        return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    until(lambda: ("step", long) in heard)  # which was active when the listening began, and goes on long enough
    patient.post(f"{server.url}/v1/jobs/{long}/cancel")
    one, two = (server.again(photo, seed=seed).json()["id"] for seed in (1, 2))
    until(lambda: {("done", one), ("done", two)} <= set(heard))
    server.delete(two)  # which ended last: of what ended long ago nothing is told
    listener.join(60)
    kinds = [kind for kind, job in heard if job == two]
    assert kinds[-2:] == ["done", "deleted"]
    assert heard.count(("done", one)) == 1


def test_no_step_runs_after_a_worker_was_told_to_stop(model: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(picture(1))
    weights = Model(folder=model, devices=("cpu",))
    views = Views(**{name: tmp_path / f"{name}.jpg" for name in ("input", "step", "result", "thumbnail")})
    job = Job(source=tmp_path / "source", target=tmp_path / "made.png", options=weights.options(**LONG), views=views)
    runner = Processes(1)
    worker = runner.start(OpenModel(weights), 0)
    steps: set[float] = set()
    answers: list[Any] = []

    def wait() -> Any:
        while True:
            for _, answer in runner.wait([worker], lambda _, reached: steps.add(reached.steps)):
                return answer

    try:
        assert wait() == Done(None)
        worker.give(job)
        waiting = threading.Thread(target=lambda: answers.append(wait()))
        waiting.start()
        until(lambda: len(steps) >= 3)
        assert views.step.exists()
        process = psutil.Process(worker._process.pid)
        process.suspend()  # so that it is known how far it was when it was told
        until(lambda: not worker.pipe.poll())
        worker.stop()
        done = len(steps)
        process.resume()
        waiting.join(60)
        [answer] = answers
        outcome = answer.result
        assert isinstance(outcome, Outcome)
        assert outcome.error == "stopped on request"
        assert len(steps) <= done + 2  # the one it was at, and one that was heard of and not yet counted
        assert not worker.pipe.poll(0.5)
        assert not job.target.exists()
    finally:
        worker.end()


def test_glimpses_are_small_without_padding_and_change_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glimpses, "SIDE", 128)
    pipeline = SupirPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    (tmp_path / "source").write_bytes(gradient(40, 10))
    options = pipeline.options(**{**QUICK, "min_size": 16, "num_steps": 4, "scale": 5.0})
    seen: list[Any] = []
    steps: list[Step] = []
    glimpse = pipeline.glimpses(tmp_path / "source", options, seen.append)
    [watched] = pipeline(tmp_path / "source", options, on_step=lambda step: (steps.append(step), glimpse(step)))
    [alone] = pipeline(tmp_path / "source", options)
    assert (watched.picture.pixels == alone.picture.pixels).all()
    assert len(steps) == 4
    assert 1 <= len(seen) < 4  # none for the last
    assert (seen[0].width, seen[0].exif) == (round(128 * 200 / 224), None)
    assert seen[0].width / seen[0].height == pytest.approx(4, rel=0.1)  # whole pixels of the latent


def test_large_photos_are_watched_too(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "LARGE", 1)
    pipeline = SupirPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    (tmp_path / "source").write_bytes(gradient())
    options = pipeline.options(**QUICK)
    views = Views(
        input=tmp_path / "input.png", step=tmp_path / "step.jpg", result=tmp_path / "shown.png",
        thumbnail=tmp_path / "thumbnail.jpg",
    )  # fmt: skip
    source, seen = tmp_path / "source", []
    alone = Job(source=source, target=tmp_path / "a.png", options=options, views=views, preview_alone=True)
    whole = Job(source=source, target=tmp_path / "b.tif", options=options, views=views, preview=tmp_path / "c.png")
    first = restore_job(pipeline, alone)
    assert first.error is None, first.unexpected
    assert not list(tmp_path.glob("*.tif"))
    outcome = restore_job(
        pipeline, whole, on_work=lambda reached: seen.append((reached.steps > 0, views.step.exists()))
    )
    assert outcome.error is None, outcome.unexpected
    assert set(seen) == {(False, False), (True, True)}  # from the first step on
    np.testing.assert_array_equal(Image.open(tmp_path / "a.png"), Image.open(tmp_path / "c.png"))
    np.testing.assert_array_equal(Image.open(views.result), Image.open(whole.target))
    np.testing.assert_array_equal(Image.open(views.input), Image.open(source))
    assert not views.step.exists()


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_a_file_as_every_browser_shows_it(tmp_path: Path, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = turn, "Ada"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    values = np.random.default_rng(turn).integers(0, 255, (40, 60, 4), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "photo.png", exif=exif, icc_profile=profile)
    image.write_shown(tmp_path / "photo.png", tmp_path / "shown.png")
    shown = Image.open(tmp_path / "shown.png")
    assert (shown.mode, shown.info["icc_profile"], dict(shown.getexif())) == ("RGBA", profile, {})
    np.testing.assert_array_equal(shown, np.rot90(values, {1: 0, 3: 2, 6: 3, 8: 1}[turn]))
    image.write_shown(tmp_path / "photo.png", tmp_path / "small.jpg", 30)
    small = Image.open(tmp_path / "small.jpg")
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (30, 20) if turn in (1, 3) else (20, 30))
    size, frame = image.read_frame(tmp_path / "photo.png")
    assert (size, frame.icc, frame.exif) == (shown.size, profile, None)


def test_16_bits_are_shown_in_8(tmp_path: Path) -> None:
    picture_of = image.Picture(pixels=torch.rand(1, 20, 30) * 2 - 1, bits=16)
    image.write(picture_of, tmp_path / "deep.tif")
    image.write_shown(tmp_path / "deep.tif", tmp_path / "shown.png")
    shown = Image.open(tmp_path / "shown.png")
    assert shown.mode == "L"
    np.testing.assert_allclose(np.asarray(shown) / 127.5 - 1, picture_of.pixels[0], atol=0.009)
