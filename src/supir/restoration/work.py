"""How much of a restoration is done: its tiles, steps and bands, each for the time that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

ENCODING, PREVIEW, ANCHOR, SAMPLING, DECODING, WRITING = (
    "encoding", "preview", "anchor", "sampling", "decoding", "writing",
)  # fmt: skip
"""The parts of a restoration, in their order."""
LIKE = {PREVIEW: DECODING}
"""Parts that do the same."""
TELLING = 2.0
"""Seconds from which on work tells how fast this machine is."""
BEGUN = 1e-6
"""What is told when the work begins: the weights are open."""


@dataclass
class Work:
    """What is done of one picture, as a share of the time that it takes in all.

    How long a part takes is known once some of it is done; before that it is taken to keep to what was expected of it
    as well, or as badly, as the parts that are known.
    """

    expected: Mapping[str, float]
    """What each part takes, in any unit of time that is the same for all."""
    tell: Callable[[float], None]
    """Told the share, from 0 to 1, never less than before."""
    clock: Callable[[], float] = time.perf_counter
    _spent: dict[str, float] = field(default_factory=dict)
    _done: dict[str, float] = field(default_factory=dict)
    _last: float = 0.0
    _share: float = BEGUN

    def __post_init__(self) -> None:
        self._last = self.clock()
        self.tell(self._share)

    def at(self, part: str, share: float) -> None:
        """A part is done to this share; what came since the last call is its time."""
        now = self.clock()
        self._spent[part] = self._spent.get(part, 0.0) + now - self._last
        self._done[part] = max(min(1.0, share), self._done.get(part, 0.0))
        self._last = now
        left, spent = self.left, sum(self._spent.values())
        if spent + left > 0:
            self._share = max(self._share, min(1.0, spent / (spent + left)))
            self.tell(self._share)

    @property
    def rate(self) -> float | None:
        """What was done of what was expected in a second; None of work too short to tell."""
        seconds = sum(self._spent.values())
        return sum(self.expected.values()) / seconds if seconds > TELLING else None

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
        for part, expected in parts[last:]:  # one that was passed over was known from an earlier picture
            taken, planned = kinds.get(LIKE.get(part, part), [0.0, 0.0])
            rest += (1 - self._done.get(part, 0.0)) * expected * (taken / planned if planned else common)
        return rest


class NoWork(Work):
    """Of which nobody is told."""

    def __init__(self) -> None:
        super().__init__({}, lambda share: None)

    def at(self, part: str, share: float) -> None:
        """Nothing."""
