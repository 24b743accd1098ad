"""Journals: files of one JSON object a line, added when something is done.

A kill tears at most the last line, which then says nothing and goes when the next one is added.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from supir.files.saying import about
from supir.files.whole import write_whole

_BLOCK = 2**16


def add_entries(path: Path, *entries: Mapping[str, Any]) -> None:
    """Add lines to a journal, which is made, all or none; a torn line at its end is taken away first.

    Raises:
        OSError: they cannot be written; the lines before them are there.
    """
    data = memoryview("".join(map(_line, entries)).encode())
    with about(path, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with path.open("r+b", buffering=0) as stream:
            whole = stream.truncate(_whole_end(stream))
            stream.seek(whole)
            try:
                while data:
                    data = data[os.write(stream.fileno(), data) :]
            except OSError:
                stream.truncate(whole)
                raise


def write_entries(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write a journal anew, in place of the one there.

    Raises:
        OSError: it cannot be written; the one before is there.
    """
    write_whole(path, "".join(map(_line, entries)))


def read_entries(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a journal; none where there is no file. Lines that hold no JSON object are left out.

    Raises:
        OSError: it cannot be read.
    """
    for line in whole_lines(path):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield entry


def whole_lines(path: Path) -> list[str]:
    """The lines of a file without their ends; none where there is no file. One that was torn is left out.

    Raises:
        OSError: it cannot be read.
    """
    if not path.exists():
        return []
    with path.open("rb") as stream:
        return [line[:-1].decode("utf-8", errors="replace") for line in stream if line.endswith(b"\n")]


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + "\n"


def _whole_end(stream: BinaryIO) -> int:
    """Where the last whole line of an open file ends."""
    end = stream.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        stream.seek(start)
        if (place := stream.read(end - start).rfind(b"\n")) >= 0:
            return start + place + 1
        end = start
    return 0
