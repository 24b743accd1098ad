"""A reverse proxy that shows a server under a path, as nginx and others do; for tests."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_OF_THE_CONNECTION = ("connection", "transfer-encoding", "keep-alive")


@contextmanager
def proxy(url: str, path: str, *, strips: bool, own_host: bool = False, **told: str) -> Iterator[str]:
    """A proxy before the server at ``url``; the address at which it shows it.

    Args:
        url: of the server.
        path: under which it is seen, as ``/photos``; all else is 404.
        strips: the path is taken off before the server is asked.
        own_host: the server is asked under its own host name, not by that of the client's request.
        told: headers that are added, underscores for hyphens.
    """
    upstream = urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def pass_on(self) -> None:
            if self.path != path and not self.path.startswith(f"{path}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_THE_CONNECTION}
            headers |= {name.replace("_", "-"): value for name, value in told.items()}
            if own_host:
                headers |= {"Host": upstream.netloc, "X-Forwarded-Host": self.headers["Host"]}
            inner = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=120)
            try:
                target = self.path.removeprefix(path) or "/" if strips else self.path
                inner.request(self.command, target, body, headers)
                answer = inner.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _OF_THE_CONNECTION:
                        self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                while part := answer.read1(65536):
                    self.wfile.write(part)
                    self.wfile.flush()
            except OSError:  # one of the two went away
                self.close_connection = True
            finally:
                inner.close()

        do_GET = do_HEAD = do_POST = do_DELETE = do_OPTIONS = pass_on

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a browser leaves its streams whenever it likes

    running = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}{path}"
    finally:
        running.shutdown()
        running.server_close()
