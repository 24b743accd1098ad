"""What a client may ask for, and who the clients are: keys by their hashes, and the pace of their requests."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import threading
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supir.errors import BusyError, KeyRefusedError, OptionError
from supir.options.fields import Options, number

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Limits(Options):
    """What one client may ask for. Numbers outside their range raise ``OptionError`` naming the field."""

    called = "a limit"

    queued: int = number(100, 1, 1_000_000, "jobs waiting or at work at a time", unit="jobs")
    requests_a_minute: int | None = number(None, 1, 1_000_000, "requests of any kind; unset: any number")
    megapixels: float = number(64.0, 0.01, 256, "of an upload, from its header", unit="MP")
    work_megapixels: float = number(64.0, 0.01, 4096, "of the picture that is worked on: upload times scale", unit="MP")
    megabytes: float = number(100.0, 0.001, 4096, "of an upload", unit="MB")


@dataclass(frozen=True, kw_only=True)
class Client:
    """Whose jobs they are: the name of a key."""

    name: str
    limits: Limits = field(default_factory=Limits)
    sha256: str = field(default="", repr=False)
    """Of the key; the key itself is nowhere."""


LOCAL = "local"
"""The name of the one client there is without keys."""


def new_key(name: str) -> tuple[str, str]:
    """(a new key, the lines that let it in, for the file of the keys). The key cannot be told from the lines.

    Raises:
        OptionError: a name that is not made of letters, digits, dots, hyphens and underscores.
    """
    _check_name(name)
    key = f"supir_{secrets.token_urlsafe(32)}"
    return key, f'[[key]]\nname = "{name}"\nsha256 = "{_hash(key)}"\n'


def read_keys(path: Path, defaults: Limits) -> list[Client]:
    """The clients that a TOML file lists, each as a table ``[[key]]``: name, sha256, and any field of ``Limits``.

    Args:
        path: of the file.
        defaults: the limits of those that set none.

    Raises:
        OptionError: it cannot be read, or a key is not what a key must be; the message names it.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("key", [])
    except (OSError, ValueError) as error:
        raise OptionError(f"{path}: cannot be read: {error}") from error
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise OptionError(f"{path}: lists no key; `supir serve --new-key NAME` prints the lines of one")
    clients: list[Client] = []
    for place, entry in enumerate(entries, 1):
        try:
            clients.append(_client(entry, defaults))
        except OptionError as error:
            raise OptionError(f"{path}: key {place}: {error}") from error
    for what in ("name", "sha256"):
        values = [getattr(client, what) for client in clients]
        if len(set(values)) < len(values):
            raise OptionError(f"{path}: two keys have the same {what}; each needs one of its own")
    return clients


def who(clients: Sequence[Client], key: str) -> Client:
    """The client with this key; every hash is compared, in constant time, so that the time taken tells nothing.

    Raises:
        KeyRefusedError: nobody has it.
    """
    given, found = _hash(key), None
    for client in clients:
        if hmac.compare_digest(client.sha256, given):
            found = client
    if found is None:
        raise KeyRefusedError("this key is not known here; send yours as: Authorization: Bearer KEY")
    return found


class RateLimiter:
    """Counts the requests of each client: a bucket that fills with time. May be asked from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def check(self, client: Client, now: float | None = None) -> None:
        """Count one request.

        Args:
            client: who asks.
            now: seconds of a steady clock; None asks for it.

        Raises:
            BusyError: they were too many.
        """
        limit = client.limits.requests_a_minute
        if limit is None:
            return
        now = time.monotonic() if now is None else now
        with self._lock:
            left, then = self._left.get(client.name, (float(limit), now))
            left = min(limit, left + (now - then) * limit / 60)
            if left < 1:
                wait = math.ceil((1 - left) * 60 / limit)
                raise BusyError(f"this key may make {limit} requests a minute; wait {wait} s", wait)
            self._left[client.name] = left - 1, now


def _client(entry: dict[str, Any], defaults: Limits) -> Client:
    values = dict(entry)
    name, sha256 = values.pop("name", None), values.pop("sha256", None)
    _check_name(name)
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise OptionError("sha256 must be the SHA-256 of the key, in 64 digits and small letters a to f")
    return Client(name=name, sha256=sha256, limits=Limits(**(vars(defaults) | Limits.known(values))))


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError(f"name is {name!r}; it must be of letters, digits, dots, hyphens and underscores, at most 64")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()
