"""The SQLite file of the service: its tables, how it is known again, and a transaction over it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from supir.errors import ServiceError

__all__ = ["Database"]

_APPLICATION, _VERSION = 0x73757073, 2
"""Marks the file as ours ("sups"), and says how its tables are laid out."""
_SCHEMA = """
CREATE TABLE job (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, client TEXT NOT NULL, name TEXT NOT NULL,
    options TEXT NOT NULL, suffix TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    digest TEXT NOT NULL, idempotency_key TEXT,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'expired')),
    created REAL NOT NULL, started REAL, finished REAL, tries INTEGER NOT NULL DEFAULT 0, error TEXT, sha256 TEXT,
    until TEXT NOT NULL CHECK (until IN ('result', 'preview')), source TEXT NOT NULL,
    caption TEXT, captioner TEXT,
    UNIQUE (client, idempotency_key)) STRICT;
CREATE INDEX by_state ON job (state, number);
CREATE INDEX by_client ON job (client, number);
CREATE INDEX by_end ON job (client, finished);
"""
_SECONDS = 30.0
"""For which a writer waits, should another program have the file open."""


class Database:
    """An open file; made if it is not there. Any thread may ask; writers come one after the other.

    Raises:
        ServiceError: it is not the database of a service, or one of another version, or SQLite refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()
        with self.writing() as database:
            [[application]] = database.execute("PRAGMA application_id")
            [[version]] = database.execute("PRAGMA user_version")
            if not database.execute("SELECT 1 FROM sqlite_master").fetchall():
                for statement in _SCHEMA.split(";\n"):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {_APPLICATION}")
                database.execute(f"PRAGMA user_version = {_VERSION}")
            elif application != _APPLICATION:
                raise ServiceError(f"{path}: not the database of a service")
            elif version != _VERSION:
                raise ServiceError(f"{path}: of version {version}; this supir reads and writes {_VERSION}")
        with closing(sqlite3.connect(path, timeout=_SECONDS)) as database:  # the file remembers it
            database.execute("PRAGMA journal_mode = WAL")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that writes, alone; all or nothing, and on the disk when it is left.

        Raises:
            ServiceError: SQLite refuses.
        """
        with self._writing, self._transaction("IMMEDIATE") as database:
            yield database

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that reads, while others write.

        Raises:
            ServiceError: SQLite refuses.
        """
        with self._transaction("DEFERRED") as database:
            yield database

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=_SECONDS, isolation_level=None)) as database:
                database.row_factory = sqlite3.Row
                database.execute(f"BEGIN {kind}")
                yield database
                database.execute("COMMIT")  # without it, closing takes all back
        except sqlite3.Error as error:
            raise ServiceError(f"{self._path}: the database cannot be used: {error}") from error
