"""Around every request: an ID, who may ask from where, errors as sentences, headers, one line of log."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from supir import errors
from supir.service.http.addressing import Front, Misaddressed, answered, host_name, same_origin

STATUS: dict[type[errors.SupirError], int] = {
    errors.KeyRefusedError: 401,
    errors.JobNotFoundError: 404,
    errors.JobNotReadyError: 409,
    errors.JobFailedError: 409,
    errors.JobExpiredError: 410,
    errors.UploadTooLargeError: 413,
    errors.ImageReadError: 415,
    errors.UploadError: 422,
    errors.ImageTooLargeError: 422,
    errors.OptionError: 422,
    errors.BusyError: 429,
    errors.MissingExtraError: 501,
    errors.ClosingError: 503,
    errors.StorageError: 503,
    errors.NoRoomError: 507,
}
"""What each error is in HTTP. Any other is a mistake of ours, or of the machine: 500, and for the log alone."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_GONE = 499
"""For the log: the client went away while it was sending."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_NOTHING_HERE = "there is nothing at this address"
_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_OURS = "this cannot be answered, by a mistake of ours; the service's log has more under this request's X-Request-ID"
_log = logging.getLogger("supir.service")
OnRequest = Callable[[str, str, int, float], None]
"""Told of method, route, status and seconds of each request."""


class Guard:
    """The middleware.

    Args:
        app: what it stands around.
        front: where the service is seen from outside.
        only_loopback: refuse requests that were not addressed to this machine by a name of its own, as those are that a
            web page sends through a name which it has made to lead here.
        on_request: told of each request.
        max_body: bytes of a request's body, which is then to say its length; None where the routes count.
    """

    def __init__(
        self, app: ASGIApp, *, front: Front | None = None, only_loopback: bool = False,
        on_request: OnRequest = lambda *_: None, max_body: int | None = None,
    ) -> None:  # fmt: skip
        self._app, self._front, self._only_loopback = app, front or Front(), only_loopback
        self._on_request, self._max_body = on_request, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if _ID.fullmatch(asked) else secrets.token_hex(8)
        start, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = MutableHeaders(scope=message)
                for name, value in {**_HEADERS, "X-Request-ID": request_id}.items():
                    given.setdefault(name, value)
            await send(message)

        method = scope["method"] if scope["method"] in _METHODS else "other"
        try:
            scope = self._front.read(scope)
            self._check(scope["method"], Headers(scope=scope))
            await answered(self._app, scope, receive, answer)
        except Misaddressed as error:
            await _error("ServiceError", str(error), error.status)(scope, receive, answer)
        except ClientDisconnect:
            status = _GONE
        except Exception:
            _log.exception("mistake of ours", extra={"request": request_id})
            if status:
                raise
            await _error("ServiceError", _OURS, 500)(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            seconds = time.perf_counter() - start
            self._on_request(method, route, status, seconds)
            told = {"request": request_id, "method": method, "route": route, "status": status}
            told |= {"seconds": round(seconds, 4), **scope.get("state", {}).get("told", {})}
            _log.info("request", extra=told)

    def _check(self, method: str, headers: Headers) -> None:
        """Refuse what is not for us, or too large, before anything of it is looked at."""
        host = headers.get("host", "")
        if self._only_loopback and not is_loopback(host_name(host)):
            text = "without keys this service answers only to 127.0.0.1, ::1 and localhost; use one of these names"
            raise Misaddressed(text, 403)
        origin = headers.get("origin")
        if origin is not None and not same_origin(origin, host):
            raise Misaddressed("a page of another origin may not use this service", 403)
        if self._max_body is not None:
            length = headers.get("content-length", "" if method == "POST" else "0")
            if "transfer-encoding" in headers or not length.isdecimal():
                raise Misaddressed("the length of the body must be given", 411)
            if int(length[:20]) > self._max_body:
                raise Misaddressed(f"a body has {self._max_body} bytes at most", 413)


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, for itself alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def guard(
    app: FastAPI, *routers: APIRouter, statuses: Mapping[type[errors.SupirError], int] = STATUS, **options: Any
) -> None:
    """Give an application its routes; every error of theirs becomes a JSON object: the name of its class, a sentence.

    Args:
        app: without routes.
        routers: hold all of them.
        statuses: what each error is in HTTP.
        options: of the `Guard` around it.
    """
    for router in routers:
        app.include_router(router)
    app.add_middleware(Guard, **options)
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]

    def known(request: Request, error: Exception) -> JSONResponse:
        kind = next((one for one in type(error).__mro__ if one in statuses), None)
        if kind is None:
            raise error  # for the guard
        answer = _error(type(error).__name__, str(error), statuses[kind])
        if isinstance(error, errors.ServiceError) and error.retry_after is not None:
            answer.headers["Retry-After"] = str(error.retry_after)
        if kind is errors.KeyRefusedError:
            answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        wrong = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        return _error("OptionError", "; ".join(wrong), 422)

    def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, StarletteHTTPException)
        detail, headers = str(error.detail), dict(error.headers or {})
        if error.status_code == 400:  # from FastAPI, of a body that is no text: as of one that is other JSON
            return _error("UploadError", "the body cannot be read; send JSON in UTF-8, as openapi.json says", 422)
        if error.status_code == 404:
            detail = _NOTHING_HERE + ("; openapi.json lists what there is" if app.openapi_url else "")
        elif error.status_code == 405:  # starlette tells of the first route of this path alone
            path = request.scope["path"].removeprefix(request.scope["root_path"])
            fitting = [route.methods or set() for route in routes if route.path_regex.match(path)]
            allowed = set().union(*fitting)
            headers["Allow"] = ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
            detail = f"this address answers to {headers['Allow']}"
        answer = _error("ServiceError", detail, error.status_code)
        answer.headers.update(headers)
        return answer

    app.add_exception_handler(errors.SupirError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(StarletteHTTPException, http)


def _error(name: str, detail: str, status: int) -> JSONResponse:
    return JSONResponse({"error": name, "detail": detail}, status)
