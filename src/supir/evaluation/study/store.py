"""A study: its questions, who was asked what in which order, and the votes. Nothing else is kept.

A question shows one picture by two methods or more at once, and asks for the best: a pair is one of two. All that
chance decides (which questions, their order, the methods' places) is drawn when a participant joins, and stored: a
server can die at any moment, several can share the file. A vote taken back stays in the file, marked as such, so that
a request that was late or is repeated does not bring it back.
"""

from __future__ import annotations

import hashlib
import json
import random
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from supir.errors import OptionError, StudyError
from supir.files.database import Database, Kind

_SCHEMA = """
CREATE TABLE study (name TEXT NOT NULL, pictures TEXT NOT NULL, begun TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) STRICT;
CREATE TABLE participant (
    id INTEGER PRIMARY KEY, token_sha256 TEXT NOT NULL UNIQUE,
    joined TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) STRICT;
"""
_QUESTIONS = """\
CREATE TABLE question (
    id INTEGER PRIMARY KEY, recipe TEXT NOT NULL, picture TEXT NOT NULL, methods TEXT NOT NULL,
    UNIQUE (recipe, picture, methods)) STRICT;
CREATE TABLE asked (
    token TEXT PRIMARY KEY, participant INTEGER NOT NULL REFERENCES participant, position INTEGER NOT NULL,
    question INTEGER NOT NULL REFERENCES question, shown TEXT NOT NULL,
    UNIQUE (participant, position), UNIQUE (participant, question)) STRICT;
CREATE TABLE vote (
    id INTEGER PRIMARY KEY, asked TEXT NOT NULL REFERENCES asked, client_id TEXT NOT NULL, chosen TEXT,
    undone INTEGER NOT NULL DEFAULT 0 CHECK (undone IN (0, 1)),
    voted TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, UNIQUE (asked, client_id)) STRICT;
CREATE UNIQUE INDEX one_vote ON vote (asked) WHERE undone = 0;
"""
"""``methods``, and as ``shown`` by place, are JSON lists; ``chosen`` is one of them, NULL where none is the best."""
_UPGRADE_1 = f"""\
ALTER TABLE question RENAME TO old_question;
ALTER TABLE asked RENAME TO old_asked;
ALTER TABLE vote RENAME TO old_vote;
DROP INDEX one_vote;
{_QUESTIONS}
INSERT INTO question SELECT id, recipe, picture, json_array(first, second) FROM old_question;
INSERT INTO asked SELECT token, participant, position, question,
    CASE first_is_left WHEN 1 THEN json_array(first, second) ELSE json_array(second, first) END
    FROM old_asked JOIN old_question ON old_question.id = question;
INSERT INTO vote SELECT old_vote.id, asked, client_id,
    CASE choice WHEN 'first' THEN first WHEN 'second' THEN second END, undone, voted
    FROM old_vote JOIN old_asked ON token = asked JOIN old_question ON old_question.id = question;
DROP TABLE old_vote;
DROP TABLE old_asked;
DROP TABLE old_question;
"""
"""Version 1 knew a first and a second method alone."""

_STUDY = Kind(
    name="a study",
    application=0x73757072,  # "supr"
    version=2,
    schema=_SCHEMA + _QUESTIONS,
    upgrades={1: _UPGRADE_1},
    error=StudyError,
)
MOST_AT_ONCE = 9
"""Methods of a question: as many as there are keys for them."""


class NotAsked(StudyError):
    """This participant was not asked this question, or not yet."""


class AlreadyAnswered(StudyError):
    """The question has a vote; another takes its place only after the first was taken back."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a participant is; questions by the tokens that only this participant knows them by."""

    answered: int
    total: int
    current: str | None
    """None when all is answered."""
    following: str | None
    """The one after it, to be loaded ahead."""
    last: str | None
    """The last one answered: its vote can be taken back."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One answer, as it counts."""

    participant: int
    recipe: str
    picture: str
    methods: tuple[str, ...]
    """Of the question, in the order in which the study names them."""
    shown: tuple[str, ...]
    """The same by place."""
    chosen: str | None
    """One of them; None where none was better than the others."""


class Store:
    """An open study; see ``begin`` for a new one.

    Raises:
        StudyError: there is no such file, it is no study, or one of another version of supir.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise StudyError(f"{path}: there is no such file; `supir study serve` begins one")
        self.path, self._database = path, Database(path, _STUDY)
        self._database.check()
        with self._database.reading() as database:
            [[name]] = database.execute("SELECT name FROM study")
            [[methods]] = database.execute("SELECT methods FROM question LIMIT 1")
        self.name = str(name)
        """A random word that tells studies apart."""
        self.at_once = len(json.loads(methods))
        """Methods of a question."""

    @staticmethod
    def begin(
        path: Path, methods: Sequence[str], identities: Mapping[tuple[str, str, str], str], at_once: int = 2
    ) -> Store:
        """Open a study, or make the file, with every ``at_once`` of the methods for every picture as a question.

        ``identities`` are those of ``supir.evaluation.study.pictures``.

        Raises:
            StudyError: as the class, or it was begun with other pictures, or with questions of another kind.
        """
        hashes = {"/".join(filter(None, key)): sha256 for key, sha256 in identities.items()}

        def fill(database: sqlite3.Connection) -> None:
            named = secrets.token_hex(6), json.dumps(hashes)
            database.execute("INSERT INTO study (name, pictures) VALUES (?, ?)", named)
            pictures = dict.fromkeys((recipe, name) for recipe, name, _ in identities)
            together = [json.dumps(chosen) for chosen in combinations(methods, at_once)]
            questions = [(*picture, chosen) for picture in pictures for chosen in together]
            database.executemany("INSERT INTO question (recipe, picture, methods) VALUES (?, ?, ?)", questions)

        study = Database(path, _STUDY)
        study.begin(fill)
        with study.reading() as database:
            [[known]] = database.execute("SELECT pictures FROM study")
        _check_same(path, json.loads(known), hashes)
        store = Store(path)
        if store.at_once != at_once:
            raise StudyError(
                f"{path}: its questions show {store.at_once} methods, not {at_once}; go on with --ask"
                f" {'pairs' if store.at_once == 2 else 'best'}, or name another --database"
            )
        return store

    def num_questions(self) -> int:
        """All that there are; a participant may be asked fewer."""
        with self._database.reading() as database:
            [[count]] = database.execute("SELECT COUNT(*) FROM question")
        return int(count)

    def join(self, num_questions: int | None = None) -> str:
        """A new participant: draws the questions (those with fewest votes first), their order and the methods' places.

        None, or more than there are, asks all questions. Returns the secret by which the participant is known; the file
        keeps its hash alone.
        """
        token, chance = secrets.token_urlsafe(24), random.SystemRandom()
        with self._database.writing() as database:
            counts = database.execute(
                "SELECT question.id, methods, COUNT(vote.id) FROM question"
                " LEFT JOIN asked ON asked.question = question.id"
                " LEFT JOIN vote ON vote.asked = asked.token AND NOT vote.undone GROUP BY question.id"
            ).fetchall()
            chance.shuffle(counts)
            chosen = sorted(counts, key=lambda row: row[-1])[:num_questions]
            chance.shuffle(chosen)
            participant = database.execute(
                "INSERT INTO participant (token_sha256) VALUES (?)", (_hash(token),)
            ).lastrowid
            database.executemany(
                "INSERT INTO asked (token, participant, position, question, shown) VALUES (?, ?, ?, ?, ?)",
                [
                    (secrets.token_urlsafe(16), participant, position, question, _shuffled(chance, methods))
                    for position, (question, methods, _) in enumerate(chosen)
                ],
            )
        return token

    def participant(self, token: str) -> int | None:
        """Who knows this secret; None for nobody."""
        with self._database.reading() as database:
            found = database.execute("SELECT id FROM participant WHERE token_sha256 = ?", (_hash(token),)).fetchone()
        return None if found is None else int(found[0])

    def progress(self, participant: int) -> Progress:
        """Where a participant is."""
        with self._database.reading() as database:
            return _progress(database, participant)

    def vote(self, participant: int, question: str, place: int | None, client_id: str) -> None:
        """Store the answer to the current question. The same once more changes nothing.

        ``place``, from 0, is that of the best; None says that there is none. ``client_id`` is made anew for every
        time that the question is shown; a repeated request has the same.

        Raises:
            OptionError: no such place.
            NotAsked: the question is not this participant's, or its turn has not come.
            AlreadyAnswered: with another ``client_id``.
        """
        with self._database.writing() as database:
            *_, shown = _asked(database, participant, question)
            if place is not None and not 0 <= place < len(shown):
                raise OptionError(f"place is {place}; allowed are 0 to {len(shown) - 1}, and none")
            votes = database.execute("SELECT client_id, undone FROM vote WHERE asked = ?", (question,)).fetchall()
            if client_id in [known for known, _ in votes]:
                return
            if any(not undone for _, undone in votes):
                raise AlreadyAnswered("this question is answered; take the answer back to change it")
            if question != _progress(database, participant).current:
                raise NotAsked("this question's turn has not come")
            database.execute(
                "INSERT INTO vote (asked, client_id, chosen) VALUES (?, ?, ?)",
                (question, client_id, None if place is None else shown[place]),
            )

    def undo(self, participant: int, question: str) -> None:
        """Take back the answer to the last question. Where there is none, nothing changes.

        Raises:
            NotAsked: the question is not this participant's.
            AlreadyAnswered: later questions are answered too.
        """
        with self._database.writing() as database:
            _asked(database, participant, question)
            last = _progress(database, participant).last
            taken_back = "UPDATE vote SET undone = 1 WHERE asked = ? AND NOT undone"
            if database.execute(taken_back, (question,)).rowcount and question != last:
                raise AlreadyAnswered("later questions are answered; take those answers back first")

    def shown(self, participant: int, question: str) -> tuple[str, str, tuple[str, ...]]:
        """What is asked: the recipe, the picture, and the methods by place.

        Raises:
            NotAsked: the question is not this participant's.
        """
        with self._database.reading() as database:
            return _asked(database, participant, question)

    def votes(self) -> list[Vote]:
        """All that count, in the order they came."""
        with self._database.reading() as database:
            rows = database.execute(
                "SELECT participant, recipe, picture, methods, shown, chosen FROM vote"
                " JOIN asked ON asked.token = vote.asked JOIN question ON question.id = asked.question"
                " WHERE NOT undone ORDER BY vote.id"
            ).fetchall()
        lists = ("methods", "shown")
        return [Vote(**{**dict(row), **{name: tuple(json.loads(row[name])) for name in lists}}) for row in rows]


def _check_same(path: Path, known: Mapping[str, str], told: Mapping[str, str]) -> None:
    differing = sorted(key for key in known.keys() | told.keys() if known.get(key) != told.get(key))
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise StudyError(
            f"{path}: begun with other pictures ({', '.join(differing[:3])}{more} differ); bring those back, or name"
            " another --database"
        )


def _progress(database: sqlite3.Connection, participant: int) -> Progress:
    """Votes are given and taken back in order, so that the answered questions are always the first ones."""
    tokens = [
        token
        for (token,) in database.execute(
            "SELECT token FROM asked WHERE participant = ? ORDER BY position", (participant,)
        )
    ]
    [[answered]] = database.execute(
        "SELECT COUNT(*) FROM vote JOIN asked ON asked.token = vote.asked WHERE participant = ? AND NOT undone",
        (participant,),
    )
    last, current, following = (
        tokens[k] if 0 <= k < len(tokens) else None for k in (answered - 1, answered, answered + 1)
    )
    return Progress(answered=answered, total=len(tokens), current=current, following=following, last=last)


def _asked(database: sqlite3.Connection, participant: int, question: str) -> tuple[str, str, tuple[str, ...]]:
    """Recipe, picture, and the methods by place."""
    found = database.execute(
        "SELECT recipe, picture, shown FROM asked JOIN question ON question.id = asked.question"
        " WHERE token = ? AND participant = ?",
        (question, participant),
    ).fetchone()
    if found is None:
        raise NotAsked("you were not asked this question in this study")
    return found[0], found[1], tuple(json.loads(found[2]))


def _shuffled(chance: random.Random, methods: str) -> str:
    """A JSON list in another order."""
    known = json.loads(methods)
    return json.dumps(chance.sample(known, len(known)))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
