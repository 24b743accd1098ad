"""Requests that no browser sends: each is answered with a sentence, and none as a mistake of ours."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

import httpx2
import pytest

from service import patient
from service.serving import QUICK, Server, picture
from supir.errors import OptionError
from supir.service.http.addressing import Front, Misaddressed, host_name, same_origin


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def detail(self) -> str:
        return str(json.loads(self.body)["detail"])


def raw(server: Server, request: bytes) -> Answer:
    """What a server says to these bytes, until it closes the connection."""
    address = httpx2.URL(server.url)
    with socket.create_connection((address.host, address.port or 0), timeout=30) as connection:
        connection.sendall(request)
        said = b""
        while part := connection.recv(65536):
            said += part
    head, _, body = said.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), headers, body)


def asked(target: str, host: str = "localhost", method: str = "GET", *more: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *more, "", ""]
    return "\r\n".join(lines).encode("latin-1")


HOSTS = [
    "[::1", "::1]", "[::1]]", "[127.0.0.1]", "[::1]x", "a b", "localhost:99999", "localhost:", "localhost:x",
    "@localhost", "evil.example@localhost", "localhost/", "localhost?", "http://localhost", "\xff",
    "localhost,localhost",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_a_malformed_host(server: Server, host: str) -> None:
    answer = raw(server, asked("/health", host))
    assert (answer.status, "the Host of this request is malformed" in answer.detail) == (400, True)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "status"), [("[::1]", 200), ("[::1]:1", 200), ("LOCALHOST", 200), ("[::2]", 403), ("", 403)]
)
def test_hosts_that_are_none_of_ours(server: Server, host: str, status: int) -> None:
    assert raw(server, asked("/health", host)).status == status


@pytest.mark.parametrize(
    "origin", ["http://[::1", "http://", "null", "//localhost", "x", "http://evil.example", "\xff"]
)
def test_malformed_origins_are_other_origins(server: Server, origin: str) -> None:
    answer = raw(server, asked("/v1/jobs", "localhost", "GET", f"Origin: {origin}"))
    assert (answer.status, "another origin" in answer.detail) == (403, True)


def test_head_is_get_without_a_body(server: Server) -> None:
    with server.client() as client:
        job = client.wait(client.submit(picture(7), **QUICK)).id
    schema = patient.get(f"{server.url}/openapi.json").json()
    paths = [path for path, methods in schema["paths"].items() if "get" in methods]
    assert len(paths) > 8
    for path in ["/openapi.json", "/nothing", *paths]:
        target = path.replace("{job}", job).replace("{view}", "input")
        answer = raw(server, asked(target, method="HEAD"))  # which ends, of events too
        assert answer.body == b"", path
        if "events" in path:
            assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
            continue
        got = patient.get(server.url + target)
        assert (answer.status, answer.headers["content-type"]) == (got.status_code, got.headers["content-type"]), path
        if path != "/metrics":  # which grows
            assert answer.headers.get("content-length") == got.headers.get("content-length"), path


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "PATCH", "TRACE", "BREW", "get", "x" * 200])
def test_other_methods_are_told_which_there_are(server: Server, method: str) -> None:
    answer = raw(server, asked("/v1/jobs", "localhost", method, "Content-Length: 0"))
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert answer.detail == "this address answers to GET, HEAD, POST"
    metrics = patient.get(f"{server.url}/metrics").text
    assert 'method="BREW"' not in metrics  # or anybody could fill the memory with names


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        (asked("http://localhost/health"), 200),
        (asked("HTTP://127.0.0.1:1/health", "evil.example"), 200),  # the target's own host goes before
        (asked("http://evil.example/health"), 403),
        (asked("http://localhost"), 404),
        (asked("http://[::1/health"), 400),
        (asked("ftp://localhost/health"), 400),
        (asked("*", method="OPTIONS"), 400),
        (asked("localhost:443", method="CONNECT"), 400),
        (asked("health"), 400),
        (asked("//health"), 404),
        (asked("/%00%ff%2e%2e/"), 404),
        (asked("/v1/jobs/%00"), 404),
        (asked("/v1/jobs?limit=" + "9" * 400), 422),
        (asked("/v1/jobs?before=%ff&state=%00"), 422),
        (asked("/v1/jobs?before=" + "x" * 8_000), 422),
        (asked("/v1/jobs?before=" + "x" * 9_000), 414),
        (asked("/" + "x" * 9_000), 414),
        (asked("/health", "localhost", "GET", "X-Long: " + "x" * 40_000), 431),
        (asked("/health", "localhost", "GET", *["X-Many: x"] * 5000), 431),
        (asked("/health", "localhost", "GET", "no colon"), 400),
        (asked("/health", "localhost", "GET", "Content-Length: many"), 400),
        (asked("/health", "localhost", "GET", "X-Request-ID: \xff\xfe"), 200),
        (asked("/v1/jobs", "localhost", "GET", "Authorization: Bearer \xff"), 200),
        (asked("/health", "localhost", "GET", "Upgrade: websocket", "Connection: upgrade"), 200),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/9\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
    ids=lambda value: ascii(value)[:60] if isinstance(value, bytes) else None,
)
def test_odd_targets_and_headers(server: Server, request_of: bytes, status: int) -> None:
    answer = raw(server, request_of)
    assert answer.status == status
    if status >= 400 and answer.headers["content-type"] == "application/json":
        assert " " in answer.detail


@pytest.mark.parametrize("path", ["/v1/results", "/v1/plan"])
@pytest.mark.parametrize("body", [b'"\xe9\x00\xff', b"\xff\xfe{}", b"{", b'{"jobs": "\xed\xa0\x80"}', b"[" * 100_000])
def test_a_body_that_is_no_json(server: Server, path: str, body: bytes) -> None:
    head = asked(path, "localhost", "POST", "Content-Type: application/json", f"Content-Length: {len(body)}")
    answer = raw(server, head + body)
    assert answer.status == 422
    assert " " in answer.detail


@pytest.mark.parametrize(
    "kind",
    [
        "", "text/plain", "application/json", "multipart/form-data", "multipart/form-data; boundary=",
        "multipart/mixed", "multipart/form-data; charset=nothing; boundary=b",
        "multipart/form-data; boundary=" + "b" * 300,
        "multipart/form-data; boundary=\xff", ";;;", "\xff/\xff",
    ],
)  # fmt: skip
def test_bodies_of_other_kinds(server: Server, kind: str) -> None:
    body = "--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"
    for path in ("/v1/jobs", "/v1/jobs/none/again"):
        request = asked(path, "localhost", "POST", f"Content-Type: {kind}", f"Content-Length: {len(body)}")
        answer = raw(server, request + body.encode())
        assert answer.status in (404, 422), answer
        assert " " in answer.detail


def test_where_it_is_seen_from() -> None:
    scope = {
        "type": "http", "method": "GET", "path": "/v1/jobs", "scheme": "http", "client": ("10.1.2.3", 1),
        "headers": [(b"host", b"inner"), (b"x-forwarded-host", b"photos.example"), (b"x-forwarded-proto", b"https"),
                    (b"x-forwarded-prefix", b"/told/")],
    }  # fmt: skip
    here, proxied = Front.of("/supir/", ""), Front.of("supir", "127.0.0.1, 10.0.0.0/8")
    for path in ("/v1/jobs", "/supir/v1/jobs"):  # whether the proxy takes it off or not
        seen = here.read({**scope, "path": path})
        assert (seen["path"], seen["root_path"], seen["scheme"]) == ("/supir/v1/jobs", "/supir", "http")
        assert dict(seen["headers"])[b"host"] == b"inner"
    seen = proxied.read(scope)
    assert (seen["path"], seen["root_path"], seen["scheme"]) == ("/told/v1/jobs", "/told", "https")
    assert dict(seen["headers"])[b"host"] == b"photos.example"
    assert scope["path"] == "/v1/jobs"
    assert proxied.read({**scope, "client": ("192.0.2.1", 1)})["root_path"] == "/supir"
    assert proxied.read({**scope, "path": "/supirious"})["path"] == "/told/supirious"
    with pytest.raises(Misaddressed):
        proxied.read({**scope, "headers": [(b"x-forwarded-host", b"a b")]})
    assert host_name("[::1]:80") == "::1"
    assert same_origin("https://photos.example", "photos.example:443")
    assert same_origin("http://LOCALHOST:1", "localhost:1")
    assert not same_origin("http://localhost:1", "localhost:2")
    for wrong in ("/a b", "/../x", "/v1", "/health/x", "/%2e"):
        with pytest.raises(OptionError, match="--root-path"):
            Front.of(wrong, "")
    with pytest.raises(OptionError, match="--trusted-proxies"):
        Front.of("", "localhost")
