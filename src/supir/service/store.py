"""The jobs and what has become of them: each change of state is one transaction, made only from the state before it."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from supir.errors import BusyError, JobNotFoundError, OptionError, StorageError
from supir.files.database import Database
from supir.options import RestoreOptions
from supir.options.audit import AuditOptions
from supir.options.crop import Crop
from supir.service.database import SERVICE
from supir.service.limits import Client
from supir.service.stored_job import StoredJob, Submission

MAX_TRIES = 5
"""Times that a job is begun without an end, because a worker or the service died, before it is given up."""
_ALL = ", ".join(field.name for field in fields(StoredJob))
_ORDER = "until, number"
"""In which jobs are taken: previews, which take seconds, before results."""
_TEXTS = "name || ' ' || coalesce(caption, '') || ' ' || coalesce(json_extract(options, '$.prompt'), '')"
_HOLDS = f" AND instr(lower({_TEXTS}), lower(?)) > 0"
"""Whether a photo's name or words hold a word. SQLite makes small letters of those of ASCII alone."""
_GIVEN_UP = (
    f"was begun {MAX_TRIES} times, and each time the process died, most often for lack of memory; try a smaller scale"
    " or smaller tiles"
)


class Store:
    """The database of the service. Any thread may ask.

    That a job was cancelled, deleted or expired holds even where the database cannot be written: it is owed, everybody
    who reads sees it, and it is written down with the next change. Should the process be killed before, the job's
    missing files tell (`recover`).

    Args:
        path: of the file; made if it is not there.

    Raises:
        ServiceError: it is no such database, or one of another version.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SERVICE)
        self._owed = _Owed()
        self._database.begin()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def pay(self) -> None:
        """Write down what is owed; where nothing is, see that it could be.

        Raises:
            StorageError: it cannot be written now.
        """
        with self._writing():
            pass

    def add(self, new: Submission, client: Client, max_queued: int) -> tuple[StoredJob, bool]:
        """Queue a job; (the job, whether it is new: a repeated request finds the one of its first time).

        Args:
            new: what to do.
            client: whose it is.
            max_queued: jobs of all clients that may be queued or running.

        Raises:
            BusyError: there are too many, of all or of this client.
            OptionError: the idempotency key came with another request before.
        """
        with self._writing() as database:
            found = self._repeated(database, client.name, new.idempotency_key)
            if found is not None:
                if found.digest != new.digest:
                    raise OptionError("this Idempotency-Key came with another picture or other options before")
                return found, False
            self._check_room(database, client, max_queued)
            row = asdict(new) | {"options": json.dumps(asdict(new.options)), "source": new.source or new.id}
            row |= {"audit": json.dumps(row["audit"]) if new.audit else None, "crop": new.crop and str(new.crop)}
            row |= {"state": "queued", "created": time.time()}
            places = ", ".join(f":{name}" for name in row)
            added = database.execute(f"INSERT INTO job ({', '.join(row)}) VALUES ({places}) RETURNING {_ALL}", row)
            return _job(added.fetchone()), True

    def check_room(self, client: Client, max_queued: int, idempotency_key: str | None) -> None:
        """Raise what `add` would raise about room, before an upload is taken for nothing."""
        with self._database.reading() as database:
            if self._repeated(database, client.name, idempotency_key) is None:
                self._check_room(database, client, max_queued)

    def get(self, job: str, client: str) -> StoredJob:
        """A job of this client.

        Raises:
            JobNotFoundError: the client has none of this ID.
        """
        with self._database.reading() as database:
            row = database.execute(f"SELECT {_ALL} FROM job WHERE id = ? AND client = ?", (job, client)).fetchone()
        [*found] = self._seen([row] if row else [])
        if not found:
            raise JobNotFoundError("there is no such job; it may have been deleted, or belong to another key")
        return found[0]

    def same(self, client: str, digest: str) -> StoredJob | None:
        """The newest job of this client that was asked for the same, and is done or will be; None if there is none."""
        with self._database.reading() as database:
            rows = database.execute(
                f"SELECT {_ALL} FROM job WHERE client = ? AND digest = ? AND state IN ('queued', 'running', 'done')"
                " ORDER BY number DESC",
                (client, digest),
            ).fetchall()
        return next((job for job in self._seen(rows) if job.state in ("queued", "running", "done")), None)

    def page(
        self, client: str, limit: int, before: str | None = None, state: str | None = None, search: str = ""
    ) -> list[StoredJob]:
        """Jobs of this client, the newest first.

        Args:
            client: whose.
            limit: at most so many.
            before: only those older than the job of this ID.
            state: only those in it.
            search: only those of photos whose name, or whose words, hold each of these words, whatever their case.

        Raises:
            JobNotFoundError: the client has no job ``before``.
        """
        bound = 2**62 if before is None else self.get(before, client).number
        words = search.split()
        found = f" AND source IN (SELECT source FROM job WHERE client = ?{_HOLDS * len(words)})" if words else ""
        with self._database.reading() as database:
            rows = database.execute(
                f"SELECT {_ALL} FROM job WHERE client = ? AND number < ? AND (? IS NULL OR state = ?){found}"
                " ORDER BY number DESC LIMIT ?",
                (client, bound, state, state, *([client] if words else []), *words, limit),
            ).fetchall()
        return [job for job in self._seen(rows) if state in (None, job.state)]

    def active_or_recent(self, client: str, since: float) -> list[StoredJob]:
        """Jobs of this client that have not ended, or have ended or been described ``since`` (seconds since 1970)."""
        with self._database.reading() as database:
            rows = database.execute(
                f"SELECT {_ALL} FROM job WHERE client = ?1 AND state IN ('queued', 'running')"
                f" UNION SELECT {_ALL} FROM job WHERE client = ?1 AND finished >= ?2"
                f" UNION SELECT {_ALL} FROM job WHERE client = ?1 AND described >= ?2 ORDER BY number",
                (client, since),
            ).fetchall()
        return self._seen(rows)

    def describe(self, job: str, caption: str, captioner: str) -> None:
        """Write down what a captioner said of a job's picture."""
        self._change(
            "UPDATE job SET caption = ?, captioner = ?, described = ? WHERE id = ?",
            (caption, captioner, time.time(), job),
        )

    def position(self, job: StoredJob) -> int:
        """How many queued jobs come before this one, whoever's."""
        with self._database.reading() as database:
            [[count]] = database.execute(
                f"SELECT COUNT(*) FROM job WHERE state = 'queued' AND ({_ORDER}) < (?, ?)", (job.until, job.number)
            )
        return int(count)

    def positions(self) -> dict[str, int]:
        """Of every queued job, by ID, how many come before it."""
        with self._database.reading() as database:
            rows = database.execute(f"SELECT id FROM job WHERE state = 'queued' ORDER BY {_ORDER}").fetchall()
        queued = [str(row["id"]) for row in rows if row["id"] not in self._owed]
        return {job: place for place, job in enumerate(queued)}

    def counts(self) -> Counter[str]:
        """Jobs by state."""
        with self._database.reading() as database:
            return Counter(dict(map(tuple, database.execute("SELECT state, COUNT(*) FROM job GROUP BY state"))))

    def claim(self) -> StoredJob | None:
        """The next queued job, which is running from now on; None if none is queued."""
        with self._writing() as database:
            row = database.execute(
                "UPDATE job SET state = 'running', started = ?, tries = tries + 1 WHERE number ="
                f" (SELECT number FROM job WHERE state = 'queued' ORDER BY {_ORDER} LIMIT 1) RETURNING {_ALL}",
                (time.time(),),
            ).fetchone()
        return None if row is None else _job(row)

    def finish(
        self, job: str, state: str, *, error: str | None = None, sha256: str | None = None,
        audited: Mapping[str, Any] | None = None,
    ) -> bool:  # fmt: skip
        """From running to done or failed. False if it was cancelled or deleted meanwhile."""
        return self._change(
            "UPDATE job SET state = ?, finished = ?, error = ?, sha256 = ?, audited = ?"
            " WHERE id = ? AND state = 'running'",
            (state, time.time(), error, sha256, json.dumps(dict(audited)) if audited else None, job),
        )

    def put_back(self, job: str, *, died: bool, why: str = _GIVEN_UP) -> str | None:
        """From running to queued, at its old place; or to failed when it ``died`` too often.

        A job that was stopped because the service is closing did not die: that try is not counted.

        Args:
            job: which.
            died: the try counts.
            why: it died, said behind the picture's name.

        Returns:
            The new state; None if it was cancelled or deleted meanwhile.
        """
        with self._writing() as database:
            if not died:
                database.execute("UPDATE job SET tries = tries - 1 WHERE id = ? AND state = 'running'", (job,))
            row = database.execute(
                "UPDATE job SET started = NULL, state = iif(tries < ?1, 'queued', 'failed'),"
                " error = iif(tries < ?1, NULL, name || ': ' || ?2), finished = iif(tries < ?1, NULL, ?3)"
                " WHERE id = ?4 AND state = 'running' RETURNING state",
                (MAX_TRIES, why, time.time(), job),
            ).fetchone()
        return None if row is None else str(row["state"])

    def cancel(self, job: str) -> bool:
        """From queued or running to cancelled, whatever its worker does from now on; False if it had ended.

        Raises:
            StorageError: it cannot be written; see `owe`.
        """
        return self._change(
            "UPDATE job SET state = 'cancelled', finished = ? WHERE id = ? AND state IN ('queued', 'running')",
            (time.time(), job),
        )

    def delete(self, job: str) -> None:
        """Forget a job, whatever its state.

        Raises:
            StorageError: it cannot be written; see `owe`.
        """
        self._change("DELETE FROM job WHERE id = ?", (job,))

    def owe(self, job: str, state: str | None) -> None:
        """A job is in this end state from now on, or forgotten (None); the database is told when it can be written.

        Its upload, or for a job that is done all its files, must be removed with this.
        """
        self._owed.add(job, state)

    def forget_missing(self, kept: dict[str, bool]) -> None:
        """After a start: forget what was owed when the last process was killed.

        Args:
            kept: for each job that has a folder, whether its upload is in it.
        """
        with self._writing() as database:
            rows = database.execute("SELECT id, state FROM job WHERE state IN ('queued', 'running', 'done')").fetchall()
            for row in rows:
                if row["id"] not in kept or (row["state"] != "done" and not kept[row["id"]]):
                    database.execute("DELETE FROM job WHERE id = ?", (row["id"],))

    def recover(self) -> tuple[set[str], set[str]]:
        """After a start: what was running when the last process ended is queued again. (active, done) jobs by ID."""
        with self._database.reading() as database:
            running = [str(row["id"]) for row in database.execute("SELECT id FROM job WHERE state = 'running'")]
        for job in running:
            self.put_back(job, died=True)
        with self._database.reading() as database:
            states = dict(map(tuple, database.execute("SELECT id, state FROM job WHERE state IN ('queued', 'done')")))
        done = {job for job, state in states.items() if state == "done"}
        return set(states) - done, done

    def expire(self, keep: float, remember: float) -> list[StoredJob]:
        """Jobs done more than ``keep`` seconds ago are expired from now on; rows of ended ones go after ``remember``.

        Returns:
            The expired: their files are to be removed. A kill before that leaves them to the next start.
        """
        now = time.time()
        with self._database.reading() as database:
            rows = database.execute(f"SELECT {_ALL} FROM job WHERE state = 'done' AND finished < ?", (now - keep,))
            due = [job for job in self._seen(rows.fetchall()) if job.state == "done"]
        try:
            with self._writing() as database:
                database.executemany(
                    "UPDATE job SET state = 'expired' WHERE id = ? AND state = 'done'", [(job.id,) for job in due]
                )
                database.execute(
                    "DELETE FROM job WHERE state IN ('expired', 'failed', 'cancelled') AND finished < ?",
                    (now - keep - remember,),
                )
        except StorageError:
            for job in due:
                self.owe(job.id, "expired")
        return due

    def _change(self, statement: str, values: tuple[object, ...]) -> bool:
        with self._writing() as database:
            return database.execute(statement, values).rowcount > 0

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that begins with what is owed."""
        with self._database.writing() as database:
            paid = self._owed.write(database)
            yield database
        self._owed.forget(paid)

    def _seen(self, rows: list[sqlite3.Row]) -> list[StoredJob]:
        return self._owed.seen(map(_job, rows))

    @staticmethod
    def _repeated(database: sqlite3.Connection, client: str, key: str | None) -> StoredJob | None:
        row = database.execute(f"SELECT {_ALL} FROM job WHERE client = ? AND idempotency_key = ?", (client, key))
        found = row.fetchone()
        return None if found is None else _job(found)

    @staticmethod
    def _check_room(database: sqlite3.Connection, client: Client, max_queued: int) -> None:
        [[whole, own]] = database.execute(
            "SELECT COUNT(*), COALESCE(SUM(client = ?), 0) FROM job WHERE state IN ('queued', 'running')",
            (client.name,),
        )
        if own >= client.limits.queued:
            raise BusyError(f"this key has {own} jobs waiting or at work; {client.limits.queued} are allowed")
        if whole >= max_queued:
            raise BusyError(f"{whole} jobs are waiting or at work; this service takes {max_queued} at a time")


def _job(row: sqlite3.Row) -> StoredJob:
    audit, audited = (json.loads(row[name]) if row[name] else None for name in ("audit", "audited"))
    options = RestoreOptions.silent(**json.loads(row["options"]))
    parsed = {"audit": audit and AuditOptions(**audit), "audited": audited}
    parsed |= {"crop": Crop.parse(row["crop"]) if row["crop"] else None}
    return StoredJob(**{**dict(row), "options": options, **parsed})


class _Owed:
    """The ends that jobs have come to while the database could not be written. Any thread may ask."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[str | None, float]] = {}  # by ID: the state, None where it is forgotten; the time
        self._lock = threading.Lock()

    def __contains__(self, job: str) -> bool:
        return job in self._ends

    def add(self, job: str, state: str | None) -> None:
        """A job is in this state from now on, or forgotten (None)."""
        with self._lock:
            self._ends[job] = state, time.time()

    def write(self, database: sqlite3.Connection) -> dict[str, tuple[str | None, float]]:
        """Write all into a transaction; what was written, for `forget` when the transaction has ended well."""
        with self._lock:
            ends = dict(self._ends)
        for job, (state, end) in ends.items():
            if state is None:
                database.execute("DELETE FROM job WHERE id = ?", (job,))
            else:
                database.execute(
                    "UPDATE job SET state = ?1, finished = coalesce(finished, ?2) WHERE id = ?3", (state, end, job)
                )
        return ends

    def forget(self, ends: dict[str, tuple[str | None, float]]) -> None:
        """These are owed no more."""
        with self._lock:
            self._ends = {job: found for job, found in self._ends.items() if found is not ends.get(job)}

    def seen(self, jobs: Iterable[StoredJob]) -> list[StoredJob]:
        """These jobs as they are by now, without those that are forgotten."""
        found = []
        for job in jobs:
            state, end = self._ends.get(job.id, (job.state, 0.0))
            if state is not None:
                found.append(replace(job, state=state, finished=job.finished or end) if end else job)
        return found
