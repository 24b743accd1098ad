"""A study: its questions, who was asked what in which order, and the votes. Nothing else is kept.

All that chance decides (which questions, their order, the sides) is drawn when a participant joins, and stored: a
server can die at any moment, several can share the file. A vote taken back stays in the file, marked as such, so that
a request that was late or is repeated does not bring it back.
"""

from __future__ import annotations

import hashlib
import random
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from supir.errors import OptionError, StudyError
from supir.evaluation.study.database import begin, opened
from supir.evaluation.study.pictures import INPUT, ORIGINAL

__all__ = ["CHOICES", "SIDES", "AlreadyAnswered", "NotAsked", "Progress", "Store", "Vote"]

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
    """An open study.

    Args:
        path: of the file; see ``begin`` for a new one.

    Raises:
        StudyError: there is no such file, it is no study, or one of another version of supir.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database, self.name = opened(path)
        """A random word that tells studies apart."""

    @staticmethod
    def begin(path: Path, methods: Sequence[str], identities: Mapping[tuple[str, str, str], str]) -> Store:
        """Open a study, or make the file with every pair of methods for every picture as a question.

        Args:
            path: of the file.
            methods: what is compared.
            identities: as ``supir.evaluation.study.pictures.identities`` gives them.

        Raises:
            StudyError: as the class, or it was begun with other pictures.
        """
        pictures = dict.fromkeys((recipe, name) for recipe, name, _ in identities)
        questions = [(*picture, *pair) for picture in pictures for pair in combinations(methods, 2)]
        begin(path, {"/".join(filter(None, key)): sha256 for key, sha256 in identities.items()}, questions)
        return Store(path)

    def num_questions(self) -> int:
        """All that there are; a participant may be asked fewer."""
        with self._database.reading() as database:
            [[count]] = database.execute("SELECT COUNT(*) FROM question")
        return int(count)

    def join(self, num_questions: int | None = None) -> str:
        """A new participant: draws the questions (those with fewest votes first), their order and the sides.

        Args:
            num_questions: how many to ask; None, or more than there are, asks all.

        Returns:
            The secret by which the participant is known; the file keeps its hash alone.
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
        """Store the answer to the current question. The same once more changes nothing.

        Args:
            participant: who answers.
            question: by its token.
            choice: one of ``CHOICES``.
            client_id: made anew for every time that the question is shown; a repeated request has the same.

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
        """What is seen: the key of ``identities``.

        Args:
            participant: who looks.
            question: by its token.
            place: one of ``SIDES``, ``INPUT`` or ``ORIGINAL``.

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
