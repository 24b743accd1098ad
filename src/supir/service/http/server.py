"""The application, and the process that serves it until it is told to stop."""

from __future__ import annotations

import os
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from supir import __version__
from supir.errors import ServiceError
from supir.options import IdleOptionWarning
from supir.service.engine import Engine
from supir.service.http.addressing import Front
from supir.service.http.events import Hub
from supir.service.http.middleware import guard
from supir.service.http.prometheus import Metrics
from supir.service.http.routes import Routes
from supir.service.http.static_pages import page_router
from supir.service.limits import Client, Limits

_ABOUT = "Restores photographs: a damaged, small or blurred picture goes in, a sharp one comes out."
_LAST_ANSWERS = 5
"""Seconds for answers that are under way when the service ends."""


def web_app(
    engine: Engine, clients: list[Client] | None, limits: Limits, *, front: Front | None = None, insecure: bool = False,
    log_details: bool = False, page: bool = False, address: str | None = None,
) -> FastAPI:  # fmt: skip
    """The application; it starts the engine.

    Args:
        engine: not started yet.
        clients: who may ask; None lets everybody ask, as one client, who must be on this machine.
        limits: of that one.
        front: where the service is seen from outside.
        insecure: everybody may ask from anywhere.
        log_details: file names and options go into the log as well.
        page: serve the page of `supir web` at the root; the engine is then to be one that is watched.
        address: where other devices of the network find that page, without a key; None where they do not.
    """
    metrics = Metrics(engine)
    routes = Routes(engine, metrics, clients, limits, log_details, address)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        routes.hub = app.state.hub = Hub(engine)
        engine.start()
        if page:
            routes.estimates.prepare()
        yield

    app = FastAPI(title="supir", description=_ABOUT, version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    places = ["api_page", *(["page", "study_page/view.js"] if page else [])]  # two pages, one way to zoom
    pages = [page_router(*places)]
    only_loopback = clients is None and not insecure
    guard(app, routes.router(), *pages, front=front, only_loopback=only_loopback, on_request=metrics.request)
    return app


def serve(app: FastAPI, engine: Engine, listening: socket.socket, shutdown_timeout: float) -> None:
    """Serve until SIGTERM or Ctrl-C; then take no new jobs, let those at work end within ``shutdown_timeout`` seconds.

    Raises:
        ServiceError: the workers cannot work.
    """
    warnings.simplefilter("ignore", IdleOptionWarning)  # whoever set the option is told, in the answer

    def close(timeout: float) -> None:
        try:
            engine.close(timeout)
        finally:
            if (hub := getattr(app.state, "hub", None)) is not None:
                hub.close()

    server = Server(app, close, shutdown_timeout)
    engine.on_failure = lambda: server.end(0.0)
    server.run(sockets=[listening])
    if engine.failure is not None:
        raise ServiceError(engine.failure)


class Server(uvicorn.Server):
    """Goes on answering while it is being closed.

    Args:
        app: what it serves.
        close: called in a thread when it is to end, with the seconds that may take; answers go on until it returns.
        shutdown_timeout: these seconds, when a signal ends it.
    """

    def __init__(
        self, app: FastAPI, close: Callable[[float], None] = lambda timeout: None, shutdown_timeout: float = 0.0
    ) -> None:
        super().__init__(uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, proxy_headers=False, lifespan="on",
            http="h11", ws="none", timeout_graceful_shutdown=_LAST_ANSWERS,
        ))  # fmt: skip
        self._close, self._shutdown_timeout = close, shutdown_timeout
        self._ending = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal; the second one ends the process at once, from which it recovers as from any kill."""
        if self._ending:
            os._exit(1)
        self.end(self._shutdown_timeout)

    def end(self, shutdown_timeout: float) -> None:
        """Begin to end; from any thread."""
        if not self._ending:
            self._ending = True
            threading.Thread(target=self._end, args=(shutdown_timeout,), name="end", daemon=True).start()

    def _end(self, shutdown_timeout: float) -> None:
        try:
            self._close(shutdown_timeout)
        finally:
            self.should_exit = True
