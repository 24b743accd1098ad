"""The web side of a study: the page, its pictures, the votes.

What a browser is told about a picture is the participant's own random word for the question, and its place: nothing
that could be held against another question, and no method's name. Nothing from a request is ever part of a path.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, StringConstraints

from supir.errors import OptionError, SupirError
from supir.evaluation.study.pictures import INPUT, ORIGINAL, Compared, served
from supir.evaluation.study.store import AlreadyAnswered, NotAsked, Store
from supir.service.http.addressing import Front
from supir.service.http.middleware import guard
from supir.service.http.static_pages import page_router

BODY_LIMIT = 4096
"""Bytes of a request's body."""
_AT_ONCE = 2
"""Pictures that are read at the same time: each takes some hundred megabytes when it is large."""
_YEAR = 365 * 24 * 3600
_STATUS: dict[type[SupirError], int] = {NotAsked: 404, AlreadyAnswered: 409, OptionError: 422}

Token = Annotated[str, StringConstraints(min_length=8, max_length=64, pattern="^[A-Za-z0-9_-]+$")]


class Answer(BaseModel):
    """A vote as the page sends it."""

    question: Token
    place: int | None
    """Of the best, from 0; null where there is none."""
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

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/state", self.state, methods=["GET"])
        router.add_api_route("/picture/{question}/{place}", self.picture, methods=["GET"])
        for function in (self.join, self.vote, self.undo):
            router.add_api_route(f"/{function.__name__}", function, methods=["POST"])
        return router

    def state(self, request: Request) -> dict[str, Any]:
        who = self._who(request)
        if who is None:
            whole = self._store.num_questions()
            return {
                "joined": False,
                "at_once": self._store.at_once,
                "total": min(self._num_questions or whole, whole),
            }
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
        self._store.vote(who, answer.question, answer.place, answer.id)
        return self._state(who)

    def undo(self, request: Request, taken_back: TakenBack) -> dict[str, Any]:
        who = self._member(request)
        self._store.undo(who, taken_back.question)
        return self._state(who)

    def picture(self, request: Request, question: Token, place: str) -> Response:
        recipe, name, methods = self._store.shown(self._member(request), question)
        kinds = {**{str(k): method for k, method in enumerate(methods)}, INPUT: INPUT, ORIGINAL: ORIGINAL}
        key = recipe, name, kinds.get(place, "")
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
            recipe, name, _ = self._store.shown(who, question)
            beside[question] = [kind for kind in (INPUT, ORIGINAL) if (recipe, name, kind) in self._paths]
        return {"joined": True, "at_once": self._store.at_once, **asdict(progress), "beside": beside}


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
    router = _Study(store, cases, identities, num_questions).router()
    guard(app, router, page_router("study_page"), statuses=_STATUS, front=front, max_body=BODY_LIMIT)
    return app
