"""Files of SQLite that are ours: made, known again by what was written into them, and a transaction over one."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from supir.errors import SupirError

__all__ = ["Database", "Kind"]

_SECONDS = 30.0
"""For which a writer waits until those of other processes have written."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What files of one kind have in common."""

    name: str
    """As in "the database of a study"."""
    application: int
    """Marks a file as of this kind; 32 bits."""
    version: int
    """Says how its tables are laid out; a file of another is refused."""
    schema: str
    """The statements that make the tables, each ended by a semicolon and a line end."""
    error: type[SupirError]
    """Raised when a file is not of this kind or version, or SQLite refuses."""


class Database:
    """A file. Any thread may ask; those of this process write one after the other.

    Nothing is opened until something is asked: `begin` makes the file, `check` wants it to be there.
    """

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path = path
        self._kind = kind
        self._writing = threading.Lock()

    def begin(self, fill: Callable[[sqlite3.Connection], None] = lambda database: None) -> None:
        """Make the file if it is not there, or see that it is one of its kind.

        Args:
            fill: called within the transaction that makes the tables.

        Raises:
            SupirError: of the kind's class: as `check`.
        """
        with self.writing() as database:
            if not database.execute("SELECT 1 FROM sqlite_master").fetchall():
                for statement in self._kind.schema.split(";\n"):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {self._kind.application}")
                database.execute(f"PRAGMA user_version = {self._kind.version}")
                fill(database)
        self.check()
        with closing(sqlite3.connect(self.path, timeout=_SECONDS)) as database:
            # So that nobody who reads waits for those who write. The file remembers it.
            database.execute("PRAGMA journal_mode = WAL")

    def check(self) -> None:
        """See that the file is of its kind and version.

        Raises:
            SupirError: of the kind's class: it is not, or SQLite refuses.
        """
        with self.reading() as database:
            [[application]] = database.execute("PRAGMA application_id")
            [[version]] = database.execute("PRAGMA user_version")
        if application != self._kind.application:
            raise self._kind.error(f"{self.path}: not the database of {self._kind.name}")
        if version != self._kind.version:
            raise self._kind.error(
                f"{self.path}: of version {version}; this supir reads and writes {self._kind.version}"
            )

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that writes, alone; all or nothing, and on the disk when it is left.

        Raises:
            SupirError: of the kind's class: SQLite refuses.
        """
        with self._writing, self._transaction("IMMEDIATE") as database:
            yield database

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that reads, while others write.

        Raises:
            SupirError: of the kind's class: SQLite refuses.
        """
        with self._transaction("DEFERRED") as database:
            yield database

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_SECONDS, isolation_level=None)) as database:
                database.row_factory = sqlite3.Row
                database.execute("PRAGMA foreign_keys = ON")
                database.execute(f"BEGIN {kind}")
                yield database
                database.execute("COMMIT")  # without it, closing takes all back
        except sqlite3.Error as error:
            raise self._kind.error(f"{self.path}: the database cannot be used: {error}") from error
