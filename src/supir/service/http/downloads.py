"""Several results as one zip, made while it is sent: nothing is kept in memory or on the disk for it."""

from __future__ import annotations

import json
import re
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from supir import __version__
from supir.options import NOTICE
from supir.options.regions import INLINE
from supir.service.stored_job import StoredJob

_CHUNK = 1 << 18
_MOST = 1000


JobID = Annotated[str, Field(pattern="^[0-9a-f]{1,64}$")]


class Bundle(BaseModel):
    """What is to be in a zip."""

    jobs: list[JobID] = Field(min_length=1, max_length=_MOST, description="jobs that are done, by ID")
    notice: bool = Field(False, description="beside each picture a text that says what it is and how it was made")


def result_name(job: StoredJob, what: str = "restored", suffix: str | None = None) -> str:
    """Of a file that was made of a job, after the name of the photo."""
    return f"{job.name.rpartition('.')[0] or job.name}.{what}{job.suffix if suffix is None else suffix}"


def notice_of(job: StoredJob, model: dict[str, str]) -> str:
    """What a picture is and how it was made, for people.

    Args:
        job: it was made by.
        model: name and hash of the weights.
    """
    made = {"preset": job.preset, **asdict(job.options)}
    lines = [
        f"{result_name(job)} was restored by supir {__version__} from {job.name}.",
        NOTICE,
        "",
        *(f"{name}: {value}" for name, value in model.items()),
        *(
            f"{name}: {_short(json.dumps(value, ensure_ascii=False))}"
            for name, value in made.items()
            if value is not None
        ),
        *([f"audit: {job.audited['says']}", *job.audited["past_limits"]] if job.audited else []),
        f"sha256 of the file: {job.sha256}",
    ]
    return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    """Not all letters of masks that are written as text."""
    return re.sub(rf"({INLINE}.{{40}})[A-Za-z0-9+/=]+", r"\1...", text)


def zipped(results: list[tuple[StoredJob, Path]], model: dict[str, str], *, notice: bool) -> Iterator[bytes]:
    """The bytes of a zip of results, which are stored as they are: pictures do not shrink.

    Args:
        results: jobs with their files; one that was removed meanwhile is named in ``missing.txt``.
        model: name and hash of the weights.
        notice: put a text beside each.
    """
    sent, taken, missing = _Sent(), Counter[str](), []
    with zipfile.ZipFile(sent, "w") as archive:
        for job, path in results:
            name = _unlike(result_name(job), taken)
            when = time.localtime(job.finished or job.created)[:6]
            try:
                stream = path.open("rb")
            except FileNotFoundError:
                missing.append(name)
                continue
            with stream, archive.open(zipfile.ZipInfo(name, when), "w", force_zip64=True) as entry:
                while chunk := stream.read(_CHUNK):
                    entry.write(chunk)
                    yield sent.taken()
            if notice:
                archive.writestr(zipfile.ZipInfo(f"{name}.txt", when), notice_of(job, model))
        if missing:
            archive.writestr("missing.txt", "".join(f"{name} was removed a moment ago.\n" for name in missing))
        yield sent.taken()
    yield sent.taken()


def _unlike(name: str, taken: Counter[str]) -> str:
    """The name, numbered where an earlier one is the same to any disk."""
    stem, dot, suffix = name.rpartition(".")
    number = taken[name.casefold()]
    taken[name.casefold()] += 1
    return name if number == 0 else _unlike(f"{stem} ({number + 1}){dot}{suffix}", taken)


class _Sent:
    """What a zip writes into: it goes out, and nobody goes back in it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any, /) -> int:
        """Take some bytes."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""

    def taken(self) -> bytes:
        """What has come since it was asked last."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
