"""The endpoint's client against a real server that answers well, late, too much, nonsense, or not at all."""

from __future__ import annotations

import json
import logging
import socket
import time
import traceback
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from caption.chat_server import Answer, ChatServer, completion
from supir.caption.endpoint import KEY_VARIABLE, MAX_ANSWER, EndpointCaptioner, checked_key
from supir.errors import CaptionerError, CaptionError, OptionError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 2000, 3), dtype=np.uint8))
KEY = "sk-test-3f9c81"


def captioner(server: ChatServer, waits: list[float] | None = None, **more: object) -> EndpointCaptioner:
    sleep = (lambda seconds: None) if waits is None else waits.append
    return EndpointCaptioner(url=server.url, model="seer", sleep=sleep, **more)  # type: ignore[arg-type]


def test_a_good_answer(server: ChatServer) -> None:
    server.script = [Answer(body=completion(" A red\ndoor.<|im_end|> "))]
    assert captioner(server)(PICTURE) == "A red door. |im_end|"
    [request], [picture] = server.asked, server.pictures()
    assert (request["path"], request["model"], request["temperature"]) == ("/v1/chat/completions", "seer", 0)
    assert (picture.format, picture.size) == ("JPEG", (1024, 154))
    assert "Authorization" not in server.headers[0]
    server.script = [Answer(body=completion([{"type": "text", "text": "in"}, {"type": "text", "text": "parts"}]))]
    assert captioner(server, max_side=100)(PICTURE) == "in parts"
    assert server.pictures()[1].size == (100, 15)


def test_a_busy_server_is_asked_again_when_it_says(server: ChatServer) -> None:
    waits: list[float] = []
    server.script = [Answer(429, headers={"Retry-After": "7"}), Answer(503), Answer(500)]
    assert captioner(server, waits)(PICTURE).startswith("A photo")
    assert waits == [7, 2, 4]
    assert len(server.asked) == 4


def test_a_date_to_retry_after(server: ChatServer) -> None:
    waits: list[float] = []
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    server.script = [Answer(429, headers={"Retry-After": date}), Answer(429, headers={"Retry-After": "soon"})]
    captioner(server, waits)(PICTURE)
    assert 25 < waits[0] <= 30
    assert waits[1] == 2


def test_who_asks_for_an_hour_is_not_waited_for(server: ChatServer) -> None:
    waits: list[float] = []
    server.script = [Answer(429, b"quota", {"Retry-After": "3600"})]
    with pytest.raises(CaptionError, match=r"429\. It says: quota"):
        captioner(server, waits)(PICTURE)
    assert waits == []


def test_errors_without_end(server: ChatServer) -> None:
    server.script = [Answer(500, b"out of memory")] * 9
    with pytest.raises(CaptionError, match=r"answers 500\. It says: out of memory") as caught:
        captioner(server)(PICTURE)
    assert not isinstance(caught.value, CaptionerError), "another picture may do"
    assert len(server.asked) == 4


@pytest.mark.parametrize("answer", [Answer(hang=600), Answer(drip=True, body=completion("word " * 1000))])
def test_a_server_that_hangs_or_drips(server: ChatServer, answer: Answer) -> None:
    server.script = [answer] * 2
    start = time.monotonic()
    asked = EndpointCaptioner(url=server.url, model="seer", timeout=2, num_tries=2, sleep=lambda seconds: None)
    with pytest.raises(CaptionError, match=r"no answer within 2 s"):
        asked(PICTURE)
    assert time.monotonic() - start < 60
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"{not json",
        b"[" * 100_000,
        b"\xff\xfe",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": [3]}}]}',
        b'{"choices": "no"}',
        completion("   "),
    ],
)
def test_an_answer_that_is_none(server: ChatServer, body: bytes) -> None:
    server.script = [Answer(body=body)]
    with pytest.raises(CaptionError, match="holds no caption"):
        captioner(server)(PICTURE)
    assert len(server.asked) == 1


def test_a_huge_answer_is_not_read(server: ChatServer) -> None:
    server.script = [Answer(body=completion("x" * (MAX_ANSWER + 1)))]
    with pytest.raises(CaptionError, match="more than 1000000 bytes"):
        captioner(server)(PICTURE)


@pytest.mark.parametrize(("status", "said"), [(401, KEY_VARIABLE), (403, "does not allow"), (404, "/v1")])
def test_what_another_picture_would_not_mend(server: ChatServer, status: int, said: str) -> None:
    server.script = [Answer(status)]
    with pytest.raises(CaptionerError, match=said):
        captioner(server)(PICTURE)
    assert len(server.asked) == 1


def test_redirections_are_not_followed(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with ChatServer() as elsewhere:
        server.script = [Answer(307, headers={"Location": f"{elsewhere.url}/chat/completions"})]
        with pytest.raises(CaptionerError, match="redirection"):
            captioner(server)(PICTURE)
        assert elsewhere.asked == []


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(CaptionerError, match="cannot be reached"):
        EndpointCaptioner(url=url, model="seer", sleep=lambda seconds: None)(PICTURE)


def echo(status: int) -> Callable[[object], Answer]:
    """The server sends back what it was sent, the key among it."""

    def answer(request: object) -> Answer:
        said = request.headers["Authorization"]  # type: ignore[attr-defined]
        return Answer(status, completion(said) if status == 200 else json.dumps({"error": said}).encode())

    return answer


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_the_key_goes_to_the_server_and_nowhere_else(
    server: ChatServer, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    server.script = [echo(status)] * 4
    asked = captioner(server)
    if status == 200:
        said = asked(PICTURE)
    else:
        with pytest.raises(CaptionError) as caught:
            asked(PICTURE)
        said = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers)
    assert "[key]" in said
    assert KEY not in said + caplog.text + repr(asked) + asked.name + asked.identity


def test_a_key_that_is_none_is_not_shown(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-a\nX-Evil: 1")
    with pytest.raises(CaptionerError, match="characters that no key has") as caught:
        captioner(server)(PICTURE)
    assert "sk-a" not in str(caught.value)
    assert server.asked == []


def test_a_key_in_the_clear_is_said_aloud() -> None:
    with pytest.warns(UserWarning, match="over http"):
        checked_key(KEY, "http://example.com/v1")
    for url in ("https://example.com/v1", "http://127.0.0.1:8000/v1", "http://[::1]/v1", "http://localhost/v1"):
        assert checked_key(KEY, url) == KEY


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://me:secret@127.0.0.1/v1", "environment variable"),
        ("https://example.com/v1?api-key=secret", "environment variable"),
        ("http://", "no URL"),
        ("http://me:secret@127.0.0.1:99999/v1", "no URL"),
        ("http://127.0.0.1:99999/v1", "no URL"),
    ],
)
def test_addresses_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        EndpointCaptioner(url=url, model="seer")
    assert "secret" not in str(caught.value)
    with pytest.raises(OptionError, match="caption-model"):
        EndpointCaptioner(url="http://127.0.0.1/v1", model="")
