"""What is sent to harm, or by mistake: refused in a sentence, nothing of it kept, nothing of it executed."""

from __future__ import annotations

import io
import json
import pickle
import socket
import zipfile
import zlib
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from picture_files import png
from service import patient
from service.serving import QUICK, Server, picture, until
from supir.errors import (
    ImageReadError,
    ImageTooLargeError,
    JobFailedError,
    OptionError,
    UploadError,
    UploadTooLargeError,
)


class Trap:
    """Makes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def zipped() -> bytes:
    """A zip bomb: a hundred megabytes of nothing."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"\0" * 100_000_000)
    return stream.getvalue()


def kept(server: Server) -> set[str]:
    return {path.name for path in (server.data / "jobs").iterdir()}


def test_what_is_no_picture(server: Server, tmp_path: Path) -> None:
    before = kept(server)
    with server.client() as client:
        for data, name, said in (
            (zipped(), "photo.png", "a ZIP archive"),
            (pickle.dumps(Trap(tmp_path / "sprung")), "model.safetensors", "a Python pickle"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.png", "an SVG"),
            (b"GIF89a" + picture(), "polyglot.png", "a GIF"),
            (b"", "a.png", "an empty file"),
            (picture()[:20], "a.png", "damaged or truncated"),
        ):
            with pytest.raises(ImageReadError) as caught:
                client.submit(data, name=name, **QUICK)
            assert str(caught.value).startswith(f"{name}: {said}")
    assert not (tmp_path / "sprung").exists()
    assert kept(server) <= before


def test_a_picture_with_something_behind_it_is_that_picture(server: Server) -> None:
    with server.client() as client:
        done = client.wait(client.submit(picture(1) + zipped(), **QUICK))
        clean = client.wait(client.submit(picture(1), **QUICK))
        first, second = (Image.open(io.BytesIO(client.result(job))) for job in (done, clean))
        assert np.array_equal(np.asarray(first), np.asarray(second))  # the records name two files


def test_a_few_kilobytes_that_claim_nine_hundred_megapixels(server: Server) -> None:
    bomb = png(30_000, 30_000, zlib.compress(b"\0" * 30_000, 9))
    assert len(bomb) < 10_000
    with server.client() as client:
        with pytest.raises(
            ImageTooLargeError, match="30000 x 30000 pixels is 900 megapixels; allowed are 1 for this key"
        ):
            client.submit(bomb, name="bomb.png", **QUICK)
        with pytest.raises(OptionError, match="are worked on at 268 megapixels; 64 are allowed"):
            client.submit(picture(0, 512, 512), **{**QUICK, "scale": 32})
        with pytest.raises(OptionError, match="lower scale or min_size"):
            client.submit(picture(), **{**QUICK, "min_size": 30_000})


def test_damage_behind_the_header_fails_in_a_sentence(server: Server) -> None:
    whole = picture(3)
    with server.client() as client:
        job = client.submit(whole[: len(whole) // 2], name="torn.png", **QUICK)
        with pytest.raises(JobFailedError, match=r"^torn\.png: damaged or truncated: \w"):
            client.wait(job)
        assert str(server.data) not in json.dumps(client.get(job).told)
        with pytest.raises(JobFailedError, match="the job failed: torn"):
            client.result(job)
    until(lambda: job.id not in kept(server))


def test_too_many_bytes_are_not_read_to_the_end(server: Server) -> None:
    with server.client() as client, pytest.raises(UploadTooLargeError, match="more than 1 megabytes"):
        client.submit(b"\0" * 1_500_000, **QUICK)
    with server.client() as client, pytest.raises(UploadTooLargeError):
        client.submit(b"\0" * 3_000_000, **QUICK)
    address = httpx2.URL(server.url)
    head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    with socket.create_connection((address.host, address.port or 0), timeout=30) as connection:
        start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + _chunk(start))
        for _ in range(30):  # of a length that nobody told
            connection.sendall(_chunk(b"\0" * 100_000))
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


FILE = {"file": ("a.png", picture())}


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"scale": "99"}, "scale is 99.0; it must be a number from 0.05 to 32"),
        ({"num_steps": "many"}, "num_steps is 'many'; it must be a whole number from 1 to 1000"),
        ({"options": '{"scale": NaN}'}, "scale is nan"),
        ({"options": '{"seed": 1e400}'}, "seed is inf"),
        ({"options": '{"prompt": 3}'}, "prompt is 3; it must be text"),
        ({"options": '{"prompt": "\\ud800"}'}, "half a character"),
        ({"options": "[" * 100_000}, "options is not JSON"),
        ({"options": '["scale"]'}, "not a JSON object"),
        ({"options": '{"preset": ["fast"]}'}, "preset is ['fast']"),
        ({"options": '{"preset": {}}'}, "preset is {}"),
        ({"options": '{"colour": 1}'}, "'colour' is not an option"),
        ({"seed": "1", "options": '{"seed": 1}'}, "seed is given twice: in options and as a field of its own"),
        ({"preset": "fast", "options": '{"preset": "fast"}'}, "preset is given twice"),
        ({"colour": "1"}, "'colour' is not a field"),
        ({"prompt": "x" * 20_000}, "bytes; 16384 are allowed"),
        ({"prompt": "x" * 200_000}, "the body is no multipart/form-data that can be read"),
        ({"format": "gif"}, "format is 'gif'; it must be one of jpeg, png, webp, tiff"),
        ({"tile": "64", "tile_overlap": "60"}, "at most half a tile"),
    ],
)
def test_wrong_options(server: Server, form: dict[str, str], said: str) -> None:
    before = kept(server)
    answer = patient.post(f"{server.url}/v1/jobs", data=form, files=FILE)
    assert answer.status_code == 422
    assert kept(server) <= before
    assert answer.json()["error"] in ("OptionError", "UploadError")
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    "request_of",
    [
        {"content": b"{}", "headers": {"Content-Type": "application/json"}},
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        {"content": b"--b\r\nhalf", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
        {"files": {"picture": ("a.png", b"x")}},
        {"files": [("file", ("a.png", b"x")), ("file", ("b.png", b"x"))]},
        {"data": {"file": "no file"}},
        {},
    ],
)
def test_bodies_that_are_no_submission(server: Server, request_of: dict[str, Any]) -> None:
    answer = patient.post(f"{server.url}/v1/jobs", **request_of)
    assert (answer.status_code, answer.json()["error"]) == (422, UploadError.__name__)


@pytest.mark.parametrize("path", ["..%2F..%2Fservice.sqlite", "%2e%2e", "x" * 65, "'; DROP TABLE job; --", "\u2603"])
def test_jobs_that_are_none(server: Server, path: str) -> None:
    for end in ("", "/result", "/preview", "/events"):
        assert patient.get(f"{server.url}/v1/jobs/{path}{end}").status_code in (404, 422)
