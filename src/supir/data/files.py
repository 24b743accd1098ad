"""Files that are there whole or not at all, and folders in which one process at a time works."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from supir.errors import SupirError

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes apart there
    fcntl = None  # type: ignore[assignment]

__all__ = ["lock", "temporary_name", "write_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """A small file, whole or not at all."""
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A hidden name beside the path, under which it is written before it is renamed."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def lock(stream: Any, folder: Path, what: str) -> None:
    """Keeps other processes out of a folder for as long as the stream, of a file in it, is open.

    Raises:
        SupirError: one is at work there; ``what`` says what it does, as in "build".
    """
    if fcntl is not None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SupirError(f"{folder}: another {what} is at work here; wait for it or end it") from error
