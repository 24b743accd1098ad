"""How much of a restoration is done: its tiles, steps and bands, each for the time that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

FIRST, ENCODING, PREVIEW, ANCHOR, SAMPLING, DECODING, PORTRAITS, WRITING = (
    "first", "encoding", "preview", "anchor", "sampling", "decoding", "portraits", "writing",
)  # fmt: skip
"""The parts of a restoration, in their order; the first is the work of another model, where one acts before, and the
last but one that on faces that are restored by themselves."""
LIKE = {PREVIEW: DECODING}
"""Parts that do the same."""
TELLING = 2.0
"""Seconds from which on work tells how fast this machine is."""
UNTOLD = 0.9
"""Of the rest of the work, what may pass for done before that is told."""
BEGUN = 1e-6
"""What is told when the work begins: the weights are open."""


class Reached(NamedTuple):
    """How far the restoration of one picture is."""

    share: float
    """Of the work that is done, from 0 to 1, in time; never less than before."""
    seconds_left: float | None = None
    """That the rest will take; None until something tells."""
    previewed: bool = False
    """The clean preview has been made, and written where it was asked for."""
    steps: float = 0.0
    """Of the sampling's steps that are done, from 0 to 1."""
    audited: float | None = None
    """Of an audit that follows the restoration, what is done, from 0 to 1; None before it."""

    def after(self, seconds: float) -> Reached:
        """Where it will be so many seconds later, as far as can be said before it is told again."""
        if not self.seconds_left:
            return self
        passed = min(seconds / self.seconds_left, UNTOLD)
        return self._replace(
            share=self.share + (1 - self.share) * passed, seconds_left=(1 - passed) * self.seconds_left
        )


@dataclass
class Work:
    """What is done of one picture, as a share of the time that it takes in all.

    How long a part takes is known once some of it is done; before that it is taken to keep to what was expected of it
    as well, or as badly, as the parts that are known.
    """

    expected: Mapping[str, float]
    """What each part takes: in seconds, or in any unit that all have in common."""
    tell: Callable[[Reached], None]
    """Told of every tile, step and band. Raise from it to stop."""
    pace: float | None = None
    """What is done of what is expected in a second, as far as is known before; None where nothing is."""
    clock: Callable[[], float] = time.perf_counter
    _spent: dict[str, float] = field(default_factory=dict)
    _done: dict[str, float] = field(default_factory=dict)
    _last: float = 0.0
    _reached: Reached = field(default_factory=lambda: Reached(BEGUN))

    def __post_init__(self) -> None:
        self._last = self.clock()
        self._foretell()

    def at(self, part: str, share: float) -> None:
        """A part is done to this share; what came since the last call is its time."""
        now = self.clock()
        self._spent[part] = self._spent.get(part, 0.0) + now - self._last
        self._done[part] = max(min(1.0, share), self._done.get(part, 0.0))
        self._last = now
        left, spent = self.left, sum(self._spent.values())
        if spent + left > 0:
            share = max(self._reached.share, min(1.0, spent / (spent + left)))
            self._now(share=share, seconds_left=left)

    def skip(self, parts: Sequence[str]) -> None:
        """These parts are there already, from an earlier picture."""
        if parts:
            self.expected = {part: taken for part, taken in self.expected.items() if part not in parts}
            self._foretell()

    def _foretell(self) -> None:
        """What it will all take, before any of it is done."""
        self._now(seconds_left=sum(self.expected.values()) / self.pace if self.pace else None)

    def stepped(self, share: float) -> None:
        """So many of the steps are done, from 0 to 1."""
        self._reached = self._reached._replace(steps=share)
        self.at(SAMPLING, share)

    def previewed(self) -> None:
        """The clean preview is there."""
        self._now(previewed=True)

    def _now(self, **changed: Any) -> None:
        self._reached = self._reached._replace(**changed)
        self.tell(self._reached)

    def rates(self, operations: Mapping[str, float]) -> dict[str, float]:
        """How many operations a second were done in each part, and in all (""); nothing of work too short to tell.

        Args:
            operations: of each part.
        """
        done = {part: share * operations.get(part, 0.0) for part, share in self._done.items()}
        seconds = {part: self._spent[part] for part, count in done.items() if count > 0 and self._spent[part] > 0}
        whole = sum(seconds.values())
        if whole < TELLING:
            return {}
        in_all = sum(done[part] for part in seconds) / whole
        return {"": in_all} | {part: done[part] / seconds[part] for part in seconds}

    @property
    def left(self) -> float:
        """Seconds that the rest will take."""
        kinds: dict[str, list[float]] = {}
        for part, share in self._done.items():
            found = kinds.setdefault(LIKE.get(part, part), [0.0, 0.0])
            found[0] += self._spent[part]
            found[1] += share * self.expected.get(part, 0.0)
        spent, foreseen = (sum(each[index] for each in kinds.values()) for index in (0, 1))
        common = spent / foreseen if foreseen else 0.0
        rest = 0.0
        parts = list(self.expected.items())
        last = max((index for index, (part, _) in enumerate(parts) if part in self._done), default=0)
        for part, expected in parts[last:]:  # one that was passed over is not told of
            taken, planned = kinds.get(LIKE.get(part, part), [0.0, 0.0])
            rest += (1 - self._done.get(part, 0.0)) * expected * (taken / planned if planned else common)
        return rest

    def within(self, part: str, number: int, total: int, expected: Mapping[str, float]) -> Work:
        """That of a picture which is one of so many that a part consists of; the number is its own, from 0."""
        return Work(expected, lambda reached: self.at(part, (number + reached.share) / total))


class NoWork(Work):
    """Of which nobody is told."""

    def __init__(self) -> None:
        super().__init__({}, lambda reached: None)

    def at(self, part: str, share: float) -> None:
        """Nothing."""

    def within(self, part: str, number: int, total: int, expected: Mapping[str, float]) -> Work:
        """Nobody is told of that either."""
        return self
