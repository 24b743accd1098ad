"""What did not fit when weights met a model: each missing, unexpected and mis-shaped key, in both worlds' names."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from supir.errors import KeyMismatchError
from supir.weights.extras import grouped

MAX_LISTED = 10
"""Keys of each kind that an error message lists; a report has all of them."""


@dataclass(frozen=True, kw_only=True)
class KeyReport:
    """The keys of each kind; `ok` when no place is left without its weight.

    `unexpected` keys are those that no place needs: with every place filled they cannot make a wrong model, and are
    warned of. `dropped` are keys left out on purpose, `begun` the parts that no file had and that begin as training
    begins them; neither is a fault.
    """

    num_tensors: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mis_shaped: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every place found its key."""
        return not (self.missing or self.mis_shaped)

    def summary(self) -> str:
        """A line of counts, then the first keys of each kind at fault."""
        lines = [
            f"{self.num_tensors} tensors fit, {len(self.missing)} missing, {len(self.unexpected)} unexpected,"
            f" {len(self.mis_shaped)} mis-shaped, {len(self.dropped)} left out on purpose"
        ]
        lines += _listed("missing", self.missing)
        lines += _listed("mis-shaped", self.mis_shaped)
        lines += [f"  unexpected: {grouped(self.unexpected)}"] * bool(self.unexpected)
        lines += [f"  begun anew, to be trained: {', '.join(self.begun)}"] * bool(self.begun)
        return "\n".join(lines)

    def require(self, *, what: str) -> None:
        """Warn of what no place needs, and raise unless `ok`.

        Raises:
            KeyMismatchError: lists what does not fit and says what to do.
        """
        if not self.ok:
            raise KeyMismatchError(
                f"{what}: {self.summary()}\n"
                "Give the SDXL file and the SUPIR file that belong together; a weight that is missing is never made up."
            )
        if self.unexpected:
            warnings.warn(
                f"{what}: {len(self.unexpected)} keys are left out, as no place in the model needs them:"
                f" {grouped(self.unexpected)}",
                stacklevel=2,
            )


def _listed(kind: str, keys: Sequence[str]) -> list[str]:
    lines = [f"  {kind}: {key}" for key in keys[:MAX_LISTED]]
    if len(keys) > MAX_LISTED:
        lines.append(f"  {kind}: and {len(keys) - MAX_LISTED} more")
    return lines
