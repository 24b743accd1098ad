"""What a request is addressed to, however it came: under a path, through a proxy, by HEAD, as a whole address."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from supir.errors import OptionError, ServiceError

Network = IPv4Network | IPv6Network
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::(?P<port>\d{1,5}))?")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_OWN = ("v1", "health", "metrics", "openapi.json")
"""First parts of the service's own paths: a proxy's path that begins so could not be told from them."""
_MAX_TARGET, _MAX_HEADERS = 1 << 13, 1 << 15
"""Bytes of a request's target, and of all its headers."""
_PORTS = {"http": "80", "https": "443"}


class Misaddressed(ServiceError):
    """A request that is addressed to nothing that can be understood, or not to us.

    Args:
        message: what came, what is allowed.
        status: to answer with.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Front:
    """Where a service is seen from outside."""

    root_path: str = ""
    """The path under which a proxy shows it, as ``/supir``; whether the proxy takes it off requests or not."""
    proxies: tuple[Network, ...] = ()
    """Whose X-Forwarded-Host, -Proto and -Prefix are believed."""

    @staticmethod
    def of(root_path: str, proxies: str | Sequence[str]) -> Front:
        """From what a user writes.

        Args:
            root_path: with or without slashes at its ends.
            proxies: addresses and networks, as ``10.0.0.0/8``; one text has commas between them.

        Raises:
            OptionError: a path or an address that is none.
        """
        root = f"/{root_path.strip('/')}" if root_path.strip("/") else ""
        if not _PREFIX.fullmatch(root) or set(root.split("/")) & {".", ".."}:
            raise OptionError(f"--root-path {root_path}: must be of letters, digits, and . _ ~ - between slashes")
        if root.split("/")[1:2] and root.split("/")[1] in _OWN:
            raise OptionError(f"--root-path {root_path}: the service has a path of that name itself; choose another")
        given = proxies.split(",") if isinstance(proxies, str) else proxies
        try:
            networks = tuple(ip_network(text.strip(), strict=False) for text in given if text.strip())
        except ValueError as error:
            raise OptionError(
                f"--trusted-proxies: {error}; write addresses or networks, as 127.0.0.1,10.0.0.0/8"
            ) from None
        return Front(root_path=root, proxies=networks)

    def read(self, scope: Scope) -> Scope:
        """A copy of the scope in which host, scheme, path and root path are as the client meant them.

        Raises:
            Misaddressed: the host or the target is malformed, or more than is read.
        """
        _check_length(scope)
        scope = {**scope, "headers": list(scope["headers"])}
        headers = MutableHeaders(scope=scope)
        _from_target(scope, headers)
        root = self.root_path
        if self._trusts(scope):
            host, proto, prefix = (_last(headers, f"x-forwarded-{name}") for name in ("host", "proto", "prefix"))
            if host:
                headers["host"] = host
            if proto in _PORTS:
                scope["scheme"] = proto
            if prefix and _PREFIX.fullmatch(prefix.rstrip("/")):
                root = prefix.rstrip("/")
        _check_host(headers.get("host", ""))
        path: str = scope["path"]
        if root and path != root and not path.startswith(f"{root}/"):
            path = root + path  # the proxy has taken it off; ASGI has it on
        scope |= {"path": path, "root_path": root}
        return scope

    def _trusts(self, scope: Scope) -> bool:
        try:
            peer = ip_address((scope.get("client") or ("",))[0])
        except ValueError:
            return False
        return any(peer in network for network in self.proxies)


async def answered(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Have a request answered whose scope `Front.read` gave: HEAD as GET without its body; the bare root path by a
    redirection to its slash, since what a page names is relative to that.
    """
    if scope["root_path"] and scope["path"] == scope["root_path"]:
        await RedirectResponse(f"{scope['root_path']}/", 308)(scope, receive, send)
        return
    if scope["method"] != "HEAD":
        await app(scope, receive, send)
        return
    begun = False

    async def head(message: Message) -> None:
        nonlocal begun
        if message["type"] == "http.response.start":
            begun = True
            await send(message)
            if "content-length" not in Headers(raw=message["headers"]):
                raise ClientDisconnect  # a stream, which may have no end
        elif not message.get("more_body"):
            await send({**message, "body": b""})

    try:
        scope["method"] = "GET"
        await app(scope, receive, head)
    except ClientDisconnect:
        if not begun:
            raise
        await send({"type": "http.response.body", "body": b""})


def host_name(host: str) -> str:
    """The name or address in a Host header that `Front.read` let through; empty where there is none."""
    found = _HOST.fullmatch(host)
    return "" if found is None else found["name"].strip("[]").lower()


def same_origin(origin: str, host: str) -> bool:
    """Whether a page of this origin was loaded from this host."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False

    def plain(netloc: str) -> str:
        return netloc.lower().removesuffix(f":{_PORTS.get(parts.scheme, '')}")

    return parts.scheme in _PORTS and bool(parts.netloc) and plain(parts.netloc) == plain(host)


def _check_length(scope: Scope) -> None:
    if len(scope["path"]) + len(scope.get("query_string", b"")) > _MAX_TARGET:
        raise Misaddressed(f"the target of this request is too long; {_MAX_TARGET} bytes are allowed", 414)
    if sum(len(name) + len(value) for name, value in scope["headers"]) > _MAX_HEADERS:
        raise Misaddressed(f"the headers of this request are too long; {_MAX_HEADERS} bytes are allowed", 431)


def _from_target(scope: Scope, headers: MutableHeaders) -> None:
    """Take host and path from a target in absolute form, which goes before the Host header (RFC 9112, 3.2.2)."""
    path: str = scope["path"]
    if path.startswith("/"):
        return
    try:
        parts = urlsplit(path)
        if parts.scheme.lower() not in _PORTS or not parts.netloc:
            raise ValueError
    except ValueError:
        raise Misaddressed("the target of a request must be a path, as /v1/jobs, or a whole http address") from None
    authority, slash, rest = path.partition("://")[2].partition("/")
    headers["host"] = authority
    scope["path"] = slash + rest if slash else "/"
    scope["raw_path"] = scope["path"].encode()


def _check_host(host: str) -> None:
    found = _HOST.fullmatch(host)
    if host and (found is None or int(found["port"] or 0) > 65535 or not _is_name(found["name"])):
        raise Misaddressed("the Host of this request is malformed; write a name or an address, as localhost:8189")


def _is_name(name: str) -> bool:
    if not name.startswith("["):
        return True
    try:
        return ip_address(name.strip("[]")).version == 6
    except ValueError:
        return False


def _last(headers: Headers, name: str) -> str:
    """What the nearest proxy said, where each adds its own."""
    return headers.get(name, "").rpartition(",")[2].strip()
