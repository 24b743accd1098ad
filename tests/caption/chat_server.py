"""A real server of one endpoint, /v1/chat/completions: answers as it is told to, and notes what was asked."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from PIL import Image


@dataclass
class Answer:
    status: int = 200
    body: bytes | None = None
    """None: a chat completion with a caption that depends on the picture alone."""
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0
    drip: bool = False
    """Send the body a byte at a time, with a tenth of a second between them."""


class ChatServer:
    """Answers from `script` one after the other, then well."""

    def __init__(self) -> None:
        self.script: list[Answer | Callable[[Any], Answer]] = []
        self.delay = 0.0
        self.key = ""
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def pictures(self) -> list[Image.Image]:
        return [Image.open(io.BytesIO(picture_of(request))) for request in self.asked]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


def picture_of(request: dict[str, Any]) -> bytes:
    [part] = [part for part in request["messages"][0]["content"] if part["type"] == "image_url"]
    head, data = part["image_url"]["url"].split(",")
    assert head == "data:image/jpeg;base64"
    return base64.b64decode(data)


def completion(text: object) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append({**request, "path": self.path})
            server.headers.append(dict(self.headers))
            answer = server.script.pop(0) if server.script else Answer()
            if callable(answer):
                answer = answer(self)
            if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
                answer = Answer(401, f"wrong key: {self.headers.get('Authorization')}".encode())
            server.closing.wait(answer.hang)
            time.sleep(server.delay)
            body = answer.body
            if body is None:
                body = completion(f"A photo numbered {hashlib.sha256(picture_of(request)).hexdigest()[:8]}.")
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for start in range(0, len(body), 1 if answer.drip else len(body) or 1):
                    self.wfile.write(body[start : start + 1] if answer.drip else body)
                    if answer.drip and server.closing.wait(0.1):
                        return
            except OSError:  # the other side has had enough
                return

        def log_message(self, *_: object) -> None:
            return

    return Handler
