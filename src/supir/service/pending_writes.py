"""What has become of jobs while the database could not be written: seen by all who read, written down later."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from supir.service.stored_job import StoredJob


@dataclass(frozen=True)
class _End:
    """How a job has ended."""

    state: str | None
    """None: it is forgotten."""
    time: float


class Owed:
    """The ends that jobs have come to, by ID. Any thread may ask."""

    def __init__(self) -> None:
        self._ends: dict[str, _End] = {}
        self._lock = threading.Lock()

    def __contains__(self, job: str) -> bool:
        return job in self._ends

    def add(self, job: str, state: str | None) -> None:
        """A job is in this state from now on, or forgotten (None)."""
        with self._lock:
            self._ends[job] = _End(state, time.time())

    def write(self, database: sqlite3.Connection) -> dict[str, _End]:
        """Write all into a transaction; what was written, for `written` when the transaction has ended well."""
        with self._lock:
            ends = dict(self._ends)
        for job, end in ends.items():
            if end.state is None:
                database.execute("DELETE FROM job WHERE id = ?", (job,))
            else:
                database.execute(
                    "UPDATE job SET state = ?1, finished = coalesce(finished, ?2) WHERE id = ?3",
                    (end.state, end.time, job),
                )
        return ends

    def written(self, ends: dict[str, _End]) -> None:
        """These are owed no more."""
        with self._lock:
            for job, end in ends.items():
                if self._ends.get(job) is end:
                    del self._ends[job]

    def seen(self, jobs: Iterable[StoredJob]) -> list[StoredJob]:
        """These jobs as they are by now, without those that are forgotten."""
        found = []
        for job in jobs:
            end = self._ends.get(job.id)
            if end is None:
                found.append(job)
            elif end.state is not None:
                found.append(replace(job, state=end.state, finished=job.finished or end.time))
        return found
