"""How far the work on a picture is, by the work that there is; and how fast it went, kept to foretell the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from supir.image import Portrait, portrait_options
from supir.options import RestoreOptions
from supir.planner.costs import Costs
from supir.planner.kept import KeptCosts, keep_rates, seen_rate
from supir.planner.plan import work_on
from supir.restoration.work import PORTRAITS, WRITING, NoWork, Reached, Work


@dataclass(frozen=True, kw_only=True)
class Foretelling:
    """For one model on one device."""

    costs: Costs
    """Of its networks; where they are ``KeptCosts``, so is how fast they went."""
    device: str
    """The kind of it, as torch names it."""
    first_models: Path | None
    """As in ``work_on``."""

    def expected(self, options: RestoreOptions, sides: tuple[int, int]) -> dict[str, float]:
        """Operations of each part of the work on a photo of so many pixels, (width, height)."""
        return work_on(self.costs, options, *sides, self.first_models)

    def work(
        self,
        options: RestoreOptions,
        sides: tuple[int, int],
        tell: Callable[[Reached], None] | None,
        portraits: Sequence[Portrait] = (),
    ) -> Work:
        """What tells how much of the work on a photo is done; nobody where ``tell`` is None.

        ``portraits`` are those of its faces that are restored by themselves after it.
        """
        if tell is None:
            return NoWork()
        expected = self.expected(options, sides)
        if portraits:
            apart, written = portrait_options(options), expected.pop(WRITING)
            each = (sum(self.expected(apart, portrait.box[2:]).values()) for portrait in portraits)
            expected |= {PORTRAITS: sum(each), WRITING: written}
        if not isinstance(self.costs, KeptCosts):
            return Work(expected, tell)
        seen = {part: seen_rate(self.costs.key, self.device, part) for part in expected}
        known = {part: expected[part] / rate for part, rate in seen.items() if rate is not None}
        if len(known) == len(expected):
            return Work(known, tell, pace=1.0)
        return Work(expected, tell, pace=seen_rate(self.costs.key, self.device))

    def keep(self, work: Work, options: RestoreOptions, sides: tuple[int, int]) -> None:
        """Keep how fast it went."""
        if isinstance(self.costs, KeptCosts) and not isinstance(work, NoWork):
            keep_rates(self.costs.key, self.device, work.rates(self.expected(options, sides)))
