"""Hashes of large files that are not read again while the files are the same, in this process and in those to come."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from supir.files import write_whole

__all__ = ["file_hash", "known_hash"]

LARGE = 10_000_000
"""Bytes; smaller files are read each time."""
SETTLED = 2.0
"""Seconds since a file's last change from which on its time tells it from a later state: disks round times."""


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal; what `sha256sum` prints."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_hash(path: Path) -> str:
    """As ``file_hash``, which takes a second a gigabyte or three; kept by the file's place, size and time of change.

    What is kept lies in the user's cache folder. Where that cannot be written, files are read each time.
    """
    stat = path.stat()
    if stat.st_size < LARGE:
        return file_hash(path)
    key = json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    kept = _kept()
    if key not in kept:
        found = file_hash(path)
        if time.time() - stat.st_mtime < SETTLED or path.stat().st_mtime_ns != stat.st_mtime_ns:
            return found
        # Another process may have added some meanwhile; what one of the two loses is only read again.
        kept = {**_kept(), key: found}
        with suppress(OSError):
            write_whole(_place(), json.dumps(kept))
    return kept[key]


def _kept() -> dict[str, str]:
    try:
        found = json.loads(_place().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _place() -> Path:
    return user_cache_path("supir", appauthor=False) / "hashes.json"
