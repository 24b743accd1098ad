"""The folder of a data set: whose it is, what may be replaced in it, and that one build at a time works there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from supir.data.shards import INDEX, RECORDS, SHARDS
from supir.errors import OptionError, SupirError
from supir.files import alone, check_ours, sentence, sweep, write_whole

__all__ = ["WORK", "claimed"]

WORK = ".build"
"""Folder inside the data set that a build resumes from; a finished set is read without it."""

_SETTINGS = "settings.json"
_OURS = (SHARDS, f"{WORK}/{RECORDS}", INDEX, "build.json", "pictures.jsonl", "report.html")


@contextmanager
def claimed(out: Path, settings: dict[str, Any], *, overwrite: bool) -> Iterator[None]:
    """Inside, the folder is ours, made with these settings, and without half-written files of a killed build.

    Raises:
        OptionError: it holds something that no build made, or a data set built with other settings (`overwrite`
            replaces that one; what was measured is kept as far as it still holds).
        SupirError: it cannot be made or written, or another build is at work in it.
    """
    work = out / WORK
    try:
        check_ours(out, [WORK], "build")
        work.mkdir(parents=True, exist_ok=True)
        with alone(work / "lock", "build"):
            _settle(out, work / _SETTINGS, settings, overwrite)
            try:
                _sweep(out)
                yield
            finally:
                _sweep(out)
    except OSError as error:
        raise SupirError(sentence(error, error.filename or out)) from error


def _sweep(out: Path) -> None:
    """Remove half-written files: of workers that ended in the middle of one."""
    for folder in (out, out / WORK):
        sweep(folder)


def _settle(out: Path, path: Path, settings: dict[str, Any], overwrite: bool) -> None:
    try:
        before = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        before = None
    if before is not None and before != settings:
        if not overwrite:
            raise OptionError(
                f"{out}: was built with other options ({', '.join(_differences(before, settings))});"
                " name another folder, or pass --overwrite to build it anew"
            )
        for pattern in _OURS:
            for old in out.glob(pattern):
                old.unlink()
    if before != settings:
        write_whole(path, json.dumps(settings, sort_keys=True))


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of the settings that differ, with both values."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new)
        elif old != new:
            found.append(f"{name} {old}, now {new}")
    return found
