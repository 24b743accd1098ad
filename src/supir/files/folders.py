"""Folders of ours: one process at a time in them, and nobody else's files replaced."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from supir.errors import OptionError, SupirError
from supir.files.whole import is_temporary

_CLUTTER = (".DS_Store", "._*", "Thumbs.db", "desktop.ini")  # what file managers leave in any folder


@contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Keeps other processes, and a second one of our own, out of the folder in which the lock file lies.

    The file is made, stays, and means nothing by itself: a killed process holds nothing.

    Raises:
        SupirError: one is at work there; ``what`` says what it does, as in "build".
        OSError: the folder cannot be written.
    """
    import filelock

    holder = filelock.FileLock(lock, timeout=0, mode=0o666, thread_local=False)
    try:
        holder.acquire()
    except filelock.Timeout as error:
        raise SupirError(f"{lock.parent}: another {what} is at work here; wait for it or end it") from error
    try:
        yield
    finally:
        holder.release()


def check_ours(folder: Path, marks: Iterable[str], what: str) -> None:
    """Refuse a folder of somebody else: it must be missing, empty, or hold one of the marks of ours.

    Args:
        folder: what is to be written into, or replaced.
        marks: names in it by which ours are known.
        what: makes such folders, as in "batch".

    Raises:
        OptionError: it is a file, or holds something that no ``what`` made.
    """
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder}: is a file; name a folder")
    if not folder.is_dir() or any((folder / mark).exists() for mark in marks):
        return
    if any(not entry.name.startswith(".") and not _is_clutter(entry.name) for entry in folder.iterdir()):
        raise OptionError(f"{folder}: holds something that no {what} made; name a new or an empty folder")


def strangers(folder: Path, ours: Iterable[str]) -> list[str]:
    """Files below a folder that match none of the patterns of ours, which are to be kept or asked about.

    Args:
        folder: what is to be replaced.
        ours: of paths below it, with ``/``; a ``*`` also stands for ``/``.

    Returns:
        Their paths below the folder, sorted. Half-written files of ours and what file managers leave are not named.
    """
    patterns = tuple(ours)
    found = []
    for here, folders, names in os.walk(folder):
        links = [name for name in folders if Path(here, name).is_symlink()]
        for name in [*names, *links]:
            place = Path(here, name).relative_to(folder).as_posix()
            known = any(fnmatch.fnmatchcase(place, pattern) for pattern in patterns)
            if not (known or is_temporary(name) or _is_clutter(name)):
                found.append(place)
    return sorted(found)


def _is_clutter(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _CLUTTER)
