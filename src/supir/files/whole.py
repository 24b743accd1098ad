"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from supir.files import system
from supir.files.saying import about

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{12}\.tmp", re.DOTALL)
_LONGEST_START = 200  # of a temporary name, in bytes: most disks allow 255 for all of it

_PATIENCE = 2.0  # seconds for which another process may keep a file open that is to be replaced


def temporary_name(path: Path) -> Path:
    """A new hidden name beside the path, under which it is written before it is renamed (`is_temporary`)."""
    start = os.fsencode(path.name)[:_LONGEST_START].decode(errors="ignore")
    return path.with_name(f".{start}.{secrets.token_hex(6)}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file or folder has a name that `temporary_name` gives."""
    return _TEMPORARY.fullmatch(name) is not None


def sweep(folder: Path, *, inside: bool = False) -> None:
    """Take away what a killed process left half-written in a folder, by its name; with ``inside`` below it, too."""
    for here, folders, names in os.walk(folder):
        for name in filter(is_temporary, [*folders, *names]):
            remove(Path(here, name))
        folders[:] = [name for name in folders if not is_temporary(name)] if inside else []


def remove(path: Path) -> None:
    """Take away a file, or a folder with all that is in it, which may be gone already; a link's target stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def written_whole(path: Path | str, *, lasting: bool = True) -> Iterator[BinaryIO]:
    """An open file, read and written, that takes the path's name when the block ends.

    Nothing of it stays when it fails. The folder is made. What was there under that name is there until then.

    Args:
        path: of the file.
        lasting: come back only when it is on the disk, so that a power cut cannot take it; not needed for what is
            only looked at.

    Raises:
        OSError: it cannot be written; ``filename`` is the path, never the temporary name.
    """
    path = Path(path)
    temporary = temporary_name(path)
    with about(path, temporary):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder; name a file", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("x+b") as stream:
                yield stream
                stream.flush()
                if lasting:
                    _sync(stream.fileno())
            replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if lasting:
            flush(path.parent)


def write_whole(path: Path | str, data: bytes | str, *, lasting: bool = True) -> None:
    """Write bytes, or text in UTF-8 with its line ends as they are; likewise."""
    with written_whole(path, lasting=lasting) as stream:
        stream.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def folder_whole(path: Path | str) -> Iterator[Path]:
    """A new folder that takes the path's name, and the place of the one there, when the block ends.

    Nothing of it stays when it fails. Whether what is there may go is the caller's to ask first (`check_ours`).

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    temporary = temporary_name(path)
    old = temporary.with_suffix(".old")  # never swept: where the power goes between two renames, it is all there is
    with about(path, temporary):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for here, _, names in os.walk(temporary):
                for name in names:
                    flush(Path(here, name))
                flush(Path(here))
            if path.exists():
                replace(path, old)
            try:
                replace(temporary, path)
            except OSError:
                if old.exists():
                    replace(old, path)
                raise
            flush(path.parent)
        finally:
            remove(temporary)
        remove(old)


def replace(new: Path, path: Path) -> None:
    """Rename, in place of what is there; where others keep that open and the system minds, try for a while."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return os.replace(new, path)  # noqa: PTH105
        except PermissionError:
            if not system.WINDOWS or time.monotonic() > end:
                raise
            time.sleep(0.05)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; where a system flushes no folders, they are not
    waited for.
    """
    if path.is_dir():
        with suppress(OSError):  # Windows opens no folder; some network disks flush none
            _flush(path, os.O_RDONLY)
    else:
        _flush(path, os.O_RDWR if system.WINDOWS else os.O_RDONLY)  # Windows flushes only what may be written


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    if system.full_sync is not None:
        with suppress(OSError):  # a network disk, which knows fsync alone
            system.full_sync(descriptor)
            return
    os.fsync(descriptor)


@contextmanager
def temporary_file(folder: Path) -> Iterator[BinaryIO]:
    """A named file, read and written, that is gone when the block ends; it may be opened again by its name inside."""
    path = temporary_name(folder / "part")
    try:
        with path.open("x+b") as stream:
            yield stream
    finally:
        path.unlink(missing_ok=True)


_SEEKING = threading.Lock()


def open_to_read(path: Path | str) -> int:
    """A descriptor for `read_at`; the caller closes it."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # Windows would change line ends


def read_at(descriptor: int, size: int, start: int) -> bytes:
    """``size`` bytes of an open file from ``start``, fewer at its end; threads may share the descriptor."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, start)
    with _SEEKING:
        os.lseek(descriptor, start, os.SEEK_SET)
        return os.read(descriptor, size)
