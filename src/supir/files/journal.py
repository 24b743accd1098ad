"""Files of lines, each added when something is done: a kill tears at most the last one, which then says nothing."""

from __future__ import annotations

import os
from pathlib import Path

from supir.files.saying import about


def add_line(path: Path, line: str) -> None:
    """Add a line to a file, which is made; a torn one at its end is taken away first.

    Raises:
        OSError: it cannot be written, wholly; the lines before it are there.
    """
    with about(path, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with path.open("r+b") as stream:
            append(stream.fileno(), len(_whole(stream.read())), line.encode() + b"\n")


def append(descriptor: int, whole: int, data: bytes) -> int:
    """Write after the first so many bytes of an open file, all or nothing; its length then.

    Raises:
        OSError: there is no room; the file has the bytes before alone.
    """
    os.ftruncate(descriptor, whole)
    os.lseek(descriptor, whole, os.SEEK_SET)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError:
        os.ftruncate(descriptor, whole)
        raise
    return whole + len(data)


def whole_lines(path: Path) -> list[str]:
    """The lines of a file without their ends; none where there is no file. One that was torn is left out.

    Raises:
        OSError: it cannot be read.
    """
    data = path.read_bytes() if path.exists() else b""
    return [line.decode("utf-8", errors="replace") for line in _whole(data).split(b"\n")[:-1]]


def _whole(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]
