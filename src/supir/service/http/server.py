"""The application, and the process that serves it until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType

from supir import __version__
from supir.errors import MissingExtraError, ServiceError

try:
    import uvicorn
    from fastapi import FastAPI

    from supir.service.http.addressing import Front
    from supir.service.http.events import Hub
    from supir.service.http.middleware import Guard, install_error_handlers
    from supir.service.http.prometheus import Metrics
    from supir.service.http.routes import Routes
    from supir.service.http.static_pages import page_router
except ImportError as error:
    raise MissingExtraError(error.name or "fastapi", "serve", "the service") from error
from supir.options import IdleOptionWarning
from supir.service.engine import Engine
from supir.service.limits import Client, Limits

__all__ = ["serve", "web_app"]

_ABOUT = "Restores photographs: a damaged, small or blurred picture goes in, a sharp one comes out."
_LAST_ANSWERS = 5
"""Seconds for answers that are under way when the service ends."""


def web_app(
    engine: Engine, clients: list[Client] | None, limits: Limits, *, front: Front | None = None, insecure: bool = False,
    log_details: bool = False, page: bool = False,
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
    """
    metrics = Metrics(engine)
    routes = Routes(engine, metrics, clients, limits, log_details)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        routes.hub = app.state.hub = Hub(engine)
        engine.start()
        yield

    app = FastAPI(title="supir", description=_ABOUT, version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    routers = [routes.router(), *([page_router()] if page else [])]
    for router in routers:
        app.include_router(router)
    install_error_handlers(app, *routers)
    app.add_middleware(
        Guard, front=front or Front(), only_loopback=clients is None and not insecure, on_request=metrics.request
    )
    return app


def serve(app: FastAPI, engine: Engine, listening: socket.socket, shutdown_timeout: float) -> None:
    """Serve until SIGTERM or Ctrl-C; then take no new jobs, let those at work end within ``shutdown_timeout`` seconds.

    Raises:
        ServiceError: the workers cannot work.
    """
    warnings.simplefilter("ignore", IdleOptionWarning)  # whoever set the option is told, in the answer
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, proxy_headers=False, lifespan="on",
        http="h11", ws="none", timeout_graceful_shutdown=_LAST_ANSWERS,
    )  # fmt: skip
    server = _Server(config, app, engine, shutdown_timeout)
    engine.on_failure = lambda: server.end(0.0)
    server.run(sockets=[listening])
    if engine.failure is not None:
        raise ServiceError(engine.failure)


class _Server(uvicorn.Server):
    """Goes on answering while the jobs at work end."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, engine: Engine, shutdown_timeout: float) -> None:
        super().__init__(config)
        self._web, self._engine, self._shutdown_timeout = app, engine, shutdown_timeout
        self._ending = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As in uvicorn."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

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
            self._engine.close(shutdown_timeout)
        finally:
            hub: Hub | None = getattr(self._web.state, "hub", None)
            if self._loop is not None and hub is not None:
                self._loop.call_soon_threadsafe(hub.close)
            self.should_exit = True
