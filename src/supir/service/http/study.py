"""The web side of a study: the page, its pictures, the votes. The one file that imports fastapi and uvicorn.

What a browser is told about a picture is the participant's own random word for the question, and left or right: nothing
that could be held against another question, and no method's name. Nothing from a request is ever part of a path.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.resources import files
from typing import Annotated, Any, Literal

from supir.errors import MissingExtraError, SupirError
from supir.evaluation.study.pictures import INPUT, ORIGINAL, Compared, served
from supir.evaluation.study.store import AlreadyAnswered, NotAsked, Store

try:
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request, Response
    from fastapi.responses import JSONResponse
    from pydantic import BaseModel, StringConstraints

    from supir.service.http.addressing import Addressed, Front
except ImportError as error:
    raise MissingExtraError("fastapi", "serve", "the page of a study") from error

__all__ = ["Front", "run", "web_app"]

BODY_LIMIT = 4096
"""Bytes of a request's body."""
_AT_ONCE = 2
"""Pictures that are read at the same time: each takes some hundred megabytes when it is large."""
_YEAR = 365 * 24 * 3600
_PAGE = {
    "/": ("index.html", "text/html"), "/study.js": ("study.js", "text/javascript"),
    "/view.js": ("view.js", "text/javascript"), "/study.css": ("study.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}  # fmt: skip
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_log = logging.getLogger("uvicorn.error")

Token = Annotated[str, StringConstraints(min_length=8, max_length=64, pattern="^[A-Za-z0-9_-]+$")]


class Answer(BaseModel):
    """A vote as the page sends it."""

    question: Token
    choice: Literal["left", "right", "tie"]
    id: Token


class TakenBack(BaseModel):
    """An undo as the page sends it."""

    question: Token


class _Study:
    """What the routes share, and the routes."""

    def __init__(
        self,
        store: Store,
        cases: Sequence[Compared],
        identities: Mapping[tuple[str, str, str], str],
        num_questions: int | None,
    ) -> None:
        self._store, self._identities, self._num_questions = store, identities, num_questions
        self._paths = {(case.recipe, case.name, kind): path for case in cases for kind, path in case.files.items()}
        self._cookie = f"supir_study_{store.name}"
        self._reading = threading.BoundedSemaphore(_AT_ONCE)

    def state(self, request: Request) -> dict[str, Any]:
        who = self._who(request)
        if who is None:
            whole = self._store.num_questions()
            return {"joined": False, "total": min(self._num_questions or whole, whole)}
        return self._state(who)

    def join(self, request: Request, response: Response) -> dict[str, Any]:
        who = self._who(request)
        if who is None:
            token = self._store.join(self._num_questions)
            response.set_cookie(self._cookie, token, max_age=_YEAR, httponly=True, samesite="strict")
            who = self._store.participant(token)
            assert who is not None
        return self._state(who)

    def vote(self, request: Request, answer: Answer) -> dict[str, Any]:
        who = self._member(request)
        self._store.vote(who, answer.question, answer.choice, answer.id)
        return self._state(who)

    def undo(self, request: Request, taken_back: TakenBack) -> dict[str, Any]:
        who = self._member(request)
        self._store.undo(who, taken_back.question)
        return self._state(who)

    def picture(self, request: Request, question: Token, place: str) -> Response:
        key = self._store.shown(self._member(request), question, place)
        if key not in self._paths:
            raise NotAsked(f"there is no picture {place!r}")
        with self._reading:
            data = served(self._paths[key], self._identities[key])
        return Response(data, media_type="image/png")

    def _who(self, request: Request) -> int | None:
        return self._store.participant(request.cookies.get(self._cookie, ""))

    def _member(self, request: Request) -> int:
        who = self._who(request)
        if who is None:
            raise HTTPException(401, "you have not joined this study")
        return who

    def _state(self, who: int) -> dict[str, Any]:
        """Where the participant is, and which of input and original the questions to be shown have."""
        progress = self._store.progress(who)
        beside = {}
        for question in filter(None, (progress.current, progress.following)):
            recipe, name, _ = self._store.shown(who, question, "left")
            beside[question] = [kind for kind in (INPUT, ORIGINAL) if (recipe, name, kind) in self._paths]
        return {"joined": True, **asdict(progress), "beside": beside}


def web_app(
    store: Store,
    cases: Sequence[Compared],
    identities: Mapping[tuple[str, str, str], str],
    num_questions: int | None = None,
    front: Front | None = None,
) -> FastAPI:
    """The application.

    Args:
        store: of these pictures.
        cases: the pictures.
        identities: their hashes, as ``supir.evaluation.study.pictures.identities`` gives them.
        num_questions: asked of each participant; None asks all.
        front: where it is seen from outside.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    study = _Study(store, cases, identities, num_questions)
    for address, (name, kind) in _PAGE.items():
        app.add_api_route(address, _static(name, kind), methods=["GET"])
    app.add_api_route("/state", study.state, methods=["GET"])
    app.add_api_route("/picture/{question}/{place}", study.picture, methods=["GET"])
    app.add_api_route("/join", study.join, methods=["POST"])
    app.add_api_route("/vote", study.vote, methods=["POST"])
    app.add_api_route("/undo", study.undo, methods=["POST"])
    _guard(app)
    app.add_middleware(Addressed, front=front or Front())
    return app


def _static(name: str, kind: str) -> Callable[[], Response]:
    data = files("supir.service").joinpath("study_page", name).read_bytes()
    return lambda: Response(data, media_type=kind)


def _guard(app: FastAPI) -> None:
    """Errors as sentences, bodies of known and small size, and the headers of every answer."""

    def refuse(status: int) -> Callable[[Request, Exception], JSONResponse]:
        return lambda request, error: JSONResponse({"detail": str(error)}, status)

    def broken(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s", error)  # it may name a file, and so a method: that is for the terminal
        return JSONResponse({"detail": "this cannot be answered; tell the person who runs the study"}, 500)

    app.add_exception_handler(NotAsked, refuse(404))
    app.add_exception_handler(AlreadyAnswered, refuse(409))
    app.add_exception_handler(SupirError, broken)

    @app.middleware("http")
    async def check(request: Request, follow: Callable[[Request], Awaitable[Response]]) -> Response:
        length = request.headers.get("content-length", "" if request.method == "POST" else "0")
        response: Response
        if "transfer-encoding" in request.headers or not length.isdecimal():
            response = JSONResponse({"detail": "the length of the body must be given"}, 411)
        elif int(length) > BODY_LIMIT:
            response = JSONResponse({"detail": f"a body has {BODY_LIMIT} bytes at most"}, 413)
        else:
            response = await follow(request)
        response.headers.update(_HEADERS)
        return response


def run(app: FastAPI, listening: socket.socket) -> None:
    """Serve until interrupted."""
    config = uvicorn.Config(app, log_level="warning", server_header=False, proxy_headers=False, http="h11", ws="none")
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        uvicorn.Server(config).run(sockets=[listening])
