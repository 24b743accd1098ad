"""The SQLite file of a study: its tables, how it is begun and known again, and a transaction over it."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from supir.errors import StudyError

__all__ = ["begin", "study_name", "transaction"]

_APPLICATION, _VERSION = 0x73757072, 1
"""Marks the file as ours ("supr"), and says how its tables are laid out."""
_SCHEMA = """
CREATE TABLE study (name TEXT NOT NULL, pictures TEXT NOT NULL, begun TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) STRICT;
CREATE TABLE question (
    id INTEGER PRIMARY KEY, recipe TEXT NOT NULL, picture TEXT NOT NULL, first TEXT NOT NULL, second TEXT NOT NULL,
    CHECK (first <> second), UNIQUE (recipe, picture, first, second)) STRICT;
CREATE TABLE participant (
    id INTEGER PRIMARY KEY, token_sha256 TEXT NOT NULL UNIQUE,
    joined TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) STRICT;
CREATE TABLE asked (
    token TEXT PRIMARY KEY, participant INTEGER NOT NULL REFERENCES participant, position INTEGER NOT NULL,
    question INTEGER NOT NULL REFERENCES question, first_is_left INTEGER NOT NULL CHECK (first_is_left IN (0, 1)),
    UNIQUE (participant, position), UNIQUE (participant, question)) STRICT;
CREATE TABLE vote (
    id INTEGER PRIMARY KEY, asked TEXT NOT NULL REFERENCES asked, client_id TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('first', 'second', 'tie')),
    undone INTEGER NOT NULL DEFAULT 0 CHECK (undone IN (0, 1)),
    voted TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, UNIQUE (asked, client_id)) STRICT;
CREATE UNIQUE INDEX one_vote ON vote (asked) WHERE undone = 0;
"""
_SECONDS = 30.0
"""For which a writer waits until the others have written."""


@contextmanager
def transaction(path: Path, kind: str = "DEFERRED") -> Iterator[sqlite3.Connection]:
    """A connection of its own, so that any thread may ask; all or nothing is written.

    Args:
        path: of the file.
        kind: ``IMMEDIATE`` to write, so that nothing changes between what is read first and what is written then.

    Raises:
        StudyError: SQLite refuses.
    """
    try:
        with closing(sqlite3.connect(path, timeout=_SECONDS, isolation_level=None)) as database:
            database.execute("PRAGMA foreign_keys = ON")
            database.execute(f"BEGIN {kind}")
            yield database
            database.execute("COMMIT")  # without it, closing takes all back
    except sqlite3.Error as error:
        raise StudyError(f"{path}: the database cannot be used: {error}") from error


def study_name(path: Path) -> str:
    """The random word that the study in a file has.

    Raises:
        StudyError: there is no such file, it is no study, or one of another version of supir.
    """
    if not path.is_file():
        raise StudyError(f"{path}: there is no such file; `supir study serve` begins one")
    with transaction(path) as database:
        [[application]] = database.execute("PRAGMA application_id")
        [[version]] = database.execute("PRAGMA user_version")
        if application != _APPLICATION:
            raise StudyError(f"{path}: not the database of a study")
        if version != _VERSION:
            raise StudyError(f"{path}: of version {version}; this supir reads and writes {_VERSION}")
        [[name]] = database.execute("SELECT name FROM study")
    return str(name)


def begin(path: Path, pictures: Mapping[str, str], questions: Sequence[tuple[str, str, str, str]]) -> None:
    """Make the file, or see that it was begun with the same pictures.

    Args:
        path: of the file.
        pictures: the hash of each by a name of it.
        questions: of each the recipe, the picture and the two methods.

    Raises:
        StudyError: as ``study_name``, or it was begun with other pictures.
    """
    with transaction(path, "IMMEDIATE") as database:
        if not database.execute("SELECT 1 FROM sqlite_master").fetchall():
            _fill(database, pictures, questions)
    study_name(path)
    with transaction(path) as database:
        [[known]] = database.execute("SELECT pictures FROM study")
    _check_same(path, json.loads(known), pictures)
    # So that nobody who reads, as a report does, waits for those who vote. The file remembers it.
    with closing(sqlite3.connect(path, timeout=_SECONDS)) as database:
        database.execute("PRAGMA journal_mode = WAL")


def _fill(
    database: sqlite3.Connection, pictures: Mapping[str, str], questions: Sequence[tuple[str, str, str, str]]
) -> None:
    for statement in _SCHEMA.split(";\n"):
        database.execute(statement)
    database.execute(f"PRAGMA application_id = {_APPLICATION}")
    database.execute(f"PRAGMA user_version = {_VERSION}")
    named = secrets.token_hex(6), json.dumps(pictures)
    database.execute("INSERT INTO study (name, pictures) VALUES (?, ?)", named)
    database.executemany("INSERT INTO question (recipe, picture, first, second) VALUES (?, ?, ?, ?)", questions)


def _check_same(path: Path, known: Mapping[str, str], told: Mapping[str, str]) -> None:
    differing = sorted(key for key in known.keys() | told.keys() if known.get(key) != told.get(key))
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise StudyError(
            f"{path}: begun with other pictures ({', '.join(differing[:3])}{more} differ); bring those back, or name"
            " another --database"
        )
