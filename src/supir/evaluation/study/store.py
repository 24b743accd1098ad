"""A study: its questions, who was asked what in which order, and the votes. Nothing else is kept.

All that chance decides (which questions, their order, the sides) is drawn when a participant joins, and stored: a
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
from supir.evaluation.study.pictures import INPUT, ORIGINAL
from supir.files.database import Database, Kind

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


SIDES = ("left", "right")
CHOICES = (*SIDES, "tie")
"""What a participant can say."""


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
    first: str
    second: str
    choice: str
    """first, second or tie."""
    first_is_left: bool


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
        self.name = str(name)
        """A random word that tells studies apart."""

    @staticmethod
    def begin(path: Path, methods: Sequence[str], identities: Mapping[tuple[str, str, str], str]) -> Store:
        """Open a study, or make the file with every pair of methods for every picture as a question.

        ``identities`` are those of ``supir.evaluation.study.pictures``.

        Raises:
            StudyError: as the class, or it was begun with other pictures.
        """
        hashes = {"/".join(filter(None, key)): sha256 for key, sha256 in identities.items()}

        def fill(database: sqlite3.Connection) -> None:
            named = secrets.token_hex(6), json.dumps(hashes)
            database.execute("INSERT INTO study (name, pictures) VALUES (?, ?)", named)
            pictures = dict.fromkeys((recipe, name) for recipe, name, _ in identities)
            questions = [(*picture, *pair) for picture in pictures for pair in combinations(methods, 2)]
            database.executemany("INSERT INTO question (recipe, picture, first, second) VALUES (?, ?, ?, ?)", questions)

        study = Database(path, _STUDY)
        study.begin(fill)
        with study.reading() as database:
            [[known]] = database.execute("SELECT pictures FROM study")
        _check_same(path, json.loads(known), hashes)
        return Store(path)

    def num_questions(self) -> int:
        """All that there are; a participant may be asked fewer."""
        with self._database.reading() as database:
            [[count]] = database.execute("SELECT COUNT(*) FROM question")
        return int(count)

    def join(self, num_questions: int | None = None) -> str:
        """A new participant: draws the questions (those with fewest votes first), their order and the sides.

        None, or more than there are, asks all questions. Returns the secret by which the participant is known; the file
        keeps its hash alone.
        """
        token, chance = secrets.token_urlsafe(24), random.SystemRandom()
        with self._database.writing() as database:
            counts = database.execute(
                "SELECT question.id, COUNT(vote.id) FROM question LEFT JOIN asked ON asked.question = question.id"
                " LEFT JOIN vote ON vote.asked = asked.token AND NOT vote.undone GROUP BY question.id"
            ).fetchall()
            chance.shuffle(counts)
            chosen = sorted(counts, key=lambda row: row[1])[:num_questions]
            chance.shuffle(chosen)
            participant = database.execute(
                "INSERT INTO participant (token_sha256) VALUES (?)", (_hash(token),)
            ).lastrowid
            database.executemany(
                "INSERT INTO asked (token, participant, position, question, first_is_left) VALUES (?, ?, ?, ?, ?)",
                [
                    (secrets.token_urlsafe(16), participant, position, question, chance.randrange(2))
                    for position, (question, _) in enumerate(chosen)
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

    def vote(self, participant: int, question: str, choice: str, client_id: str) -> None:
        """Store the answer, of ``CHOICES``, to the current question. The same once more changes nothing.

        ``client_id`` is made anew for every time that the question is shown; a repeated request has the same.

        Raises:
            OptionError: no such choice.
            NotAsked: the question is not this participant's, or its turn has not come.
            AlreadyAnswered: with another ``client_id``.
        """
        if choice not in CHOICES:
            raise OptionError(f"choice is {choice!r}; allowed are {', '.join(CHOICES)}")
        with self._database.writing() as database:
            first_is_left = _asked(database, participant, question)[1]
            votes = database.execute("SELECT client_id, undone FROM vote WHERE asked = ?", (question,)).fetchall()
            if client_id in [known for known, _ in votes]:
                return
            if any(not undone for _, undone in votes):
                raise AlreadyAnswered("this question is answered; take the answer back to change it")
            if question != _progress(database, participant).current:
                raise NotAsked("this question's turn has not come")
            names = ("first", "second") if first_is_left else ("second", "first")
            database.execute(
                "INSERT INTO vote (asked, client_id, choice) VALUES (?, ?, ?)",
                (question, client_id, {**dict(zip(SIDES, names, strict=True)), "tie": "tie"}[choice]),
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

    def shown(self, participant: int, question: str, place: str) -> tuple[str, str, str]:
        """What is seen in a place, one of ``SIDES``, ``INPUT`` or ``ORIGINAL``: the key of ``identities``.

        Raises:
            NotAsked: the question is not this participant's, or there is no such place.
        """
        with self._database.reading() as database:
            number, first_is_left = _asked(database, participant, question)
            [[recipe, picture, *pair]] = database.execute(
                "SELECT recipe, picture, first, second FROM question WHERE id = ?", (number,)
            )
        places = dict(zip(SIDES, pair if first_is_left else reversed(pair), strict=True))
        kind = {**places, INPUT: INPUT, ORIGINAL: ORIGINAL}.get(place)
        if kind is None:
            raise NotAsked(f"there is no picture {place!r}")
        return recipe, picture, kind

    def votes(self) -> list[Vote]:
        """All that count, in the order they came."""
        with self._database.reading() as database:
            rows = database.execute(
                "SELECT participant, recipe, picture, first, second, choice, first_is_left FROM vote"
                " JOIN asked ON asked.token = vote.asked JOIN question ON question.id = asked.question"
                " WHERE NOT undone ORDER BY vote.id"
            ).fetchall()
        names = list(Vote.__dataclass_fields__)
        return [Vote(**{**dict(zip(names, row, strict=True)), "first_is_left": bool(row[-1])}) for row in rows]


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


def _asked(database: sqlite3.Connection, participant: int, question: str) -> tuple[int, bool]:
    """A question's number and whether its first method is on the left."""
    found = database.execute(
        "SELECT question, first_is_left FROM asked WHERE token = ? AND participant = ?", (question, participant)
    ).fetchone()
    if found is None:
        raise NotAsked("you were not asked this question in this study")
    return int(found[0]), bool(found[1])


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
