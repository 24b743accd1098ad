"""The SQLite file of a study: its tables, how it is begun and known again."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from supir.errors import StudyError
from supir.files.database import Database, Kind

__all__ = ["begin", "opened"]

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

_STUDY = Kind(name="a study", application=0x73757072, version=1, schema=_SCHEMA, error=StudyError)  # "supr"


def opened(path: Path) -> tuple[Database, str]:
    """The study in a file, and the random word that it has.

    Raises:
        StudyError: there is no such file, it is no study, or one of another version of supir.
    """
    if not path.is_file():
        raise StudyError(f"{path}: there is no such file; `supir study serve` begins one")
    study = Database(path, _STUDY)
    study.check()
    with study.reading() as database:
        [[name]] = database.execute("SELECT name FROM study")
    return study, str(name)


def begin(path: Path, pictures: Mapping[str, str], questions: Sequence[tuple[str, str, str, str]]) -> None:
    """Make the file, or see that it was begun with the same pictures.

    Args:
        path: of the file.
        pictures: the hash of each by a name of it.
        questions: of each the recipe, the picture and the two methods.

    Raises:
        StudyError: as ``opened``, or it was begun with other pictures.
    """

    def fill(database: sqlite3.Connection) -> None:
        named = secrets.token_hex(6), json.dumps(pictures)
        database.execute("INSERT INTO study (name, pictures) VALUES (?, ?)", named)
        database.executemany("INSERT INTO question (recipe, picture, first, second) VALUES (?, ?, ?, ?)", questions)

    study = Database(path, _STUDY)
    study.begin(fill)
    with study.reading() as database:
        [[known]] = database.execute("SELECT pictures FROM study")
    _check_same(path, json.loads(known), pictures)


def _check_same(path: Path, known: Mapping[str, str], told: Mapping[str, str]) -> None:
    differing = sorted(key for key in known.keys() | told.keys() if known.get(key) != told.get(key))
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise StudyError(
            f"{path}: begun with other pictures ({', '.join(differing[:3])}{more} differ); bring those back, or name"
            " another --database"
        )
