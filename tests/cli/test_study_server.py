"""The web side of a study, request by request: what is told, what is refused, that left is left."""

from __future__ import annotations

import io
import json
import signal
import socket
import sqlite3
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from cli.study_process import FIRST, NUM_QUESTIONS, PICTURES, SECOND, StudyServer
from supir.cli.main import app
from supir.cli.study import _listen
from supir.errors import ServiceError
from supir.evaluation.study.store import Store, Vote


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudyServer]:
    running = StudyServer(tmp_path_factory.mktemp("study"))
    yield running
    Person(running.url).ask("state")  # before its first answer, the signal would only end it
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(120) == 0
    assert "see: supir study report" in (running.folder / "errors.txt").read_text()


class Person:
    """A browser without a page: cookies, requests, and everything that came back."""

    def __init__(self, url: str) -> None:
        self.url, self.cookies, self.heard = url, CookieJar(), b""
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **headers})
        try:
            answer = self.opener.open(request)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            found = answer.status, answer.read()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Server"] is None
        self.heard += str(answer.headers).encode() + found[1]
        return found

    def state(self, path: str = "state", body: Any = None) -> dict[str, Any]:
        status, text = self.ask(path, body)
        assert status == 200, text
        return dict(json.loads(text))


@pytest.fixture
def person(server: StudyServer) -> Person:
    return Person(server.url)


def votes_since(server: StudyServer, before: list[Vote]) -> list[Vote]:
    return Store(server.database).votes()[len(before) :]


def test_left_is_left_and_nothing_tells_a_name(server: StudyServer, person: Person) -> None:
    before = Store(server.database).votes()
    for page in ("", "study.js", "view.js", "study.css", "icon.svg"):
        assert person.ask(page)[0] == 200
    assert person.state() == {"joined": False, "at_once": 2, "total": NUM_QUESTIONS}
    state = person.state("join", {})
    chosen, tokens = [], []
    while (question := state["current"]) is not None:
        assert state["beside"][question] == ["input"]
        data = {place: person.ask(f"picture/{question}/{place}")[1] for place in ("0", "1", "input")}
        seen = {place: np.asarray(Image.open(io.BytesIO(found))) for place, found in data.items()}
        [(name, method)] = [
            (name, method)
            for name in PICTURES
            for method in (FIRST, SECOND)
            if np.array_equal(seen["0"], Image.open(server.folder / method / f"{name}.png"))
        ]
        other = SECOND if method == FIRST else FIRST
        np.testing.assert_array_equal(seen["1"], Image.open(server.folder / other / f"{name}.png"))
        np.testing.assert_array_equal(seen["input"], Image.open(server.folder / "lq" / f"{name}.png"))
        for place in ("original", "2", "left", "-1"):
            assert person.ask(f"picture/{question}/{place}")[0] == 404
        chosen.append((name, method))
        tokens.append(question)
        state = person.state("vote", {"question": question, "place": 0, "id": f"answer-{question}"})
    assert [(vote.picture, vote.chosen) for vote in votes_since(server, before)] == chosen
    assert len(set(tokens)) == NUM_QUESTIONS == state["answered"]
    assert state["last"] == tokens[-1]
    for word in (FIRST, SECOND, *PICTURES, str(server.folder)):
        assert word.encode() not in person.heard


def test_what_is_refused_stores_nothing(server: StudyServer, person: Person) -> None:
    before = Store(server.database).votes()
    assert person.ask("vote", {"question": "abcdefgh", "place": 0, "id": "abcdefgh"})[0] == 401
    state = person.state("join", {})
    other = Person(server.url)
    theirs = other.state("join", {})["current"]
    good = {"question": state["current"], "place": 0, "id": "an-id-of-mine"}
    refused: list[tuple[int, Any]] = [
        (404, {**good, "question": theirs}),
        (404, {**good, "question": "abcdefgh"}),
        (404, {**good, "question": state["following"]}),
        (422, {**good, "place": 2}),
        (422, {**good, "place": "left"}),
        (422, {"question": state["current"], "id": "an-id-of-mine"}),
        (422, {**good, "id": ""}),
        (422, {**good, "id": "x" * 65}),
        (422, {}),
        (422, b"no json"),
        (422, {**good, "question": "../../etc/passwd"}),
    ]
    for status, body in refused:
        assert person.ask("vote", body)[0] == status, body
    assert person.ask(f"picture/{theirs}/0")[0] == 404
    assert person.ask("picture/..%2F..%2Fetc/passwd")[0] in (404, 422)
    assert person.ask("picture/%2e%2e/%2e%2e/pyproject.toml")[0] in (404, 422)
    assert person.ask("undo", {"question": theirs})[0] == 404
    assert person.ask("openapi.json")[0] == 404
    assert person.ask("vote", good, Origin="http://elsewhere.example")[0] == 403
    assert votes_since(server, before) == []
    assert person.state()["answered"] == 0


@pytest.mark.parametrize(
    ("header", "status"), [("Content-Length: 4097", 413), ("Transfer-Encoding: chunked", 411), ("X: none", 411)]
)
def test_bodies_too_large_or_of_unknown_size_are_not_read(server: StudyServer, header: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", int(server.port)), timeout=60) as connection:
        connection.sendall(f"POST /vote HTTP/1.1\r\nHost: here\r\n{header}\r\n\r\n".encode())
        assert connection.recv(100).startswith(f"HTTP/1.1 {status} ".encode())


def test_twice_is_once_and_undo_asks_again(server: StudyServer, person: Person) -> None:
    before = Store(server.database).votes()
    first = person.state("join", {})["current"]
    body = {"question": first, "place": 1, "id": "an-id-of-mine"}
    assert person.state("vote", body) == person.state("vote", body)
    assert person.ask("vote", {**body, "id": "another-id", "place": None})[0] == 409
    assert len(votes_since(server, before)) == 1
    assert person.state("join", {})["answered"] == 1  # who has joined stays who they are
    assert person.state("undo", {"question": first})["current"] == first
    assert person.state("undo", {"question": first})["answered"] == 0
    assert votes_since(server, before) == []
    [cookie] = person.cookies
    assert cookie.has_nonstandard_attr("HttpOnly")


def test_a_changed_picture_is_not_shown_and_names_nothing(server: StudyServer, person: Person) -> None:
    state = person.state("join", {})
    _, name, (method, _) = Store(server.database).shown(_last_participant(server), state["current"])
    path = server.folder / method / f"{name}.png"
    kept = path.read_bytes()
    try:
        for damaged in ((server.folder / "lq" / f"{name}.png").read_bytes(), b"none"):
            path.write_bytes(damaged)
            status, text = person.ask(f"picture/{state['current']}/0")
            assert status == 500
            assert b"cannot be answered" in text
            assert method.encode() not in person.heard
    finally:
        path.write_bytes(kept)
    assert person.ask(f"picture/{state['current']}/0")[0] == 200


def _last_participant(server: StudyServer) -> int:
    with sqlite3.connect(server.database) as database:
        [[last]] = database.execute("SELECT MAX(id) FROM participant")
    return int(last)


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True)])
def test_others_who_can_reach_it_are_warned_of(host: str, warned: bool) -> None:
    said = io.StringIO()
    try:
        _listen(Console(file=said), host, 0).close()
    except ServiceError:
        assert ":" in host, "only IPv6 may be missing"
        return
    assert ("everyone who reaches it sees the pictures" in said.getvalue()) == warned


def test_without_the_extra_it_says_what_to_install(server: StudyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for name in [name for name in sys.modules if name.startswith("supir.service.http")]:
        monkeypatch.delitem(sys.modules, name)
    methods = [f"--method={name}={server.folder / name}" for name in (FIRST, SECOND)]
    done = CliRunner().invoke(app, ["study", "serve", *methods])
    assert done.exit_code == 1
    assert done.stderr == "error: the service needs fastapi, which is not installed: pip install 'supir[serve]'\n"
