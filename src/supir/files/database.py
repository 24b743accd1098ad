"""Files of SQLite that are ours: made, known again by what was written into them, and a transaction over one."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from supir.errors import SupirError

_MOST_IDLE = 8
"""Connections that are kept while nobody asks."""
_FULL = {sqlite3.SQLITE_FULL}
_FOR_A_WHILE = {
    sqlite3.SQLITE_BUSY: "another process has locked it",
    sqlite3.SQLITE_LOCKED: "another process has locked it",
    sqlite3.SQLITE_READONLY: "it can only be read",
    sqlite3.SQLITE_PERM: "it may only be read",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_CANTOPEN: "its files cannot be opened",
}
"""What SQLite says, by its primary code, that may end by itself or by somebody's help."""


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
    upgrades: Mapping[int, str] = field(default_factory=dict)
    """The statements that make a file of a version one of the next, as in `schema`."""
    error: type[SupirError]
    """Raised when a file is not of this kind or version, or SQLite refuses."""
    unwritable: type[SupirError] | None = None
    """Raised in its place while the file is locked, or can only be read."""
    full: type[SupirError] | None = None
    """Raised in its place while the disk has no room for what is written."""
    patience: float = 30.0
    """Seconds for which a writer waits until those of other processes have written."""


class Database:
    """A file. Any thread may ask; those of this process write one after the other.

    Nothing is opened until something is asked: `begin` makes the file, `check` wants it to be there; both upgrade it.
    Connections are kept for those who ask next, whichever thread: to open one takes 2 ms, to read by it 0.05, and while
    one is open a reader needs no room on the disk.
    """

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path = path
        self._kind = kind
        self._writing = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        weakref.finalize(self, _close_all, self._idle)

    def close(self) -> None:
        """Close what is kept; asked again, it is opened again."""
        _close_all(self._idle)

    def begin(self, fill: Callable[[sqlite3.Connection], None] = lambda database: None) -> None:
        """Make the file if it is not there, or see that it is one of its kind.

        Args:
            fill: called within the transaction that makes the tables.

        Raises:
            SupirError: of the kind's classes: as `check`.
        """
        with self.writing() as database:
            if not database.execute("SELECT 1 FROM sqlite_master").fetchall():
                _run(database, self._kind.schema)
                database.execute(f"PRAGMA application_id = {self._kind.application}")
                database.execute(f"PRAGMA user_version = {self._kind.version}")
                fill(database)
        self.check()
        with self._connected() as database:
            # So that nobody who reads waits for those who write. The file remembers it.
            database.execute("PRAGMA journal_mode = WAL")

    def check(self) -> None:
        """See that the file is of its kind and version, or make it one of this version where that is known.

        Raises:
            SupirError: of the kind's classes: it is not, or SQLite refuses.
        """
        with self.reading() as database:
            application, version = _marks(database)
        if application == self._kind.application and version in self._kind.upgrades:
            with self.writing() as database:
                while (version := _marks(database)[1]) in self._kind.upgrades:
                    _run(database, self._kind.upgrades[version])
                    database.execute(f"PRAGMA user_version = {version + 1}")
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
            SupirError: of the kind's classes: SQLite refuses.
        """
        with self._writing, self._transaction("IMMEDIATE") as database:
            yield database

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that reads, while others write.

        Raises:
            SupirError: of the kind's classes: SQLite refuses.
        """
        with self._transaction("DEFERRED") as database:
            yield database

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        with self._connected() as database:
            database.execute(f"BEGIN {kind}")
            yield database
            database.execute("COMMIT")

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        database = None
        try:
            database = self._taken()
            yield database
        except sqlite3.Error as error:
            if database is not None:
                database.close()
                database = None
            raise self._refusal(error) from error
        finally:
            if database is not None:
                self._put_back(database)

    def _taken(self) -> sqlite3.Connection:
        with suppress(IndexError):
            return self._idle.pop()
        database = sqlite3.connect(
            self.path, timeout=self._kind.patience, isolation_level=None, check_same_thread=False
        )
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA foreign_keys = ON")
        return database

    def _put_back(self, database: sqlite3.Connection) -> None:
        """Keep a connection for the next; what it has begun and not ended is taken back."""
        with suppress(sqlite3.Error):
            if database.in_transaction:
                database.execute("ROLLBACK")
            if len(self._idle) < _MOST_IDLE:
                self._idle.append(database)
                return
        database.close()

    def _refusal(self, error: sqlite3.Error) -> SupirError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        kind = self._kind
        if code in _FULL or (code in _FOR_A_WHILE and self._has_no_room()):
            return (kind.full or kind.error)(f"{self.path}: cannot be written: the disk is full; make room")
        if code in _FOR_A_WHILE:
            return (kind.unwritable or kind.error)(f"{self.path}: cannot be used now: {_FOR_A_WHILE[code]} ({error})")
        return kind.error(f"{self.path}: the database cannot be used: {error}")

    def _has_no_room(self) -> bool:
        """Beside the database SQLite makes small files, and of those that fail for lack of room it says no reason."""
        with suppress(OSError):
            return shutil.disk_usage(self.path.parent).free < 1 << 16
        return False


def _marks(database: sqlite3.Connection) -> tuple[int, int]:
    """Application and version."""
    [[application]] = database.execute("PRAGMA application_id")
    [[version]] = database.execute("PRAGMA user_version")
    return application, version


def _run(database: sqlite3.Connection, statements: str) -> None:
    """Within a transaction, which `executescript` would end."""
    for statement in statements.split(";\n"):
        database.execute(statement)


def _close_all(connections: list[sqlite3.Connection]) -> None:
    with suppress(IndexError):
        while True:
            connections.pop().close()
