"""What did not fit when weights met a model: each missing, unexpected and mis-shaped key, in both worlds' names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from supir.errors import KeyMismatchError

MAX_LISTED = 10
"""Keys of each kind that an error message lists; a report has all of them."""


@dataclass(frozen=True, kw_only=True)
class KeyReport:
    """The keys of each kind; `ok` when nothing is missing, unexpected or mis-shaped.

    `dropped` are original keys left out on purpose; they are no fault.
    """

    num_tensors: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mis_shaped: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every key found its place and every place its key."""
        return not (self.missing or self.unexpected or self.mis_shaped)

    def summary(self) -> str:
        """A line of counts, then the first keys of each kind at fault."""
        lines = [
            f"{self.num_tensors} tensors fit, {len(self.missing)} missing, {len(self.unexpected)} unexpected,"
            f" {len(self.mis_shaped)} mis-shaped, {len(self.dropped)} left out on purpose"
        ]
        lines += _listed("missing", self.missing)
        lines += _listed("unexpected", self.unexpected)
        lines += _listed("mis-shaped", self.mis_shaped)
        return "\n".join(lines)

    def require(self, *, what: str) -> None:
        """Raise unless `ok`.

        Raises:
            KeyMismatchError: lists what does not fit and says what to do.
        """
        if not self.ok:
            raise KeyMismatchError(
                f"{what}: {self.summary()}\n"
                "Give the SDXL file and the SUPIR file that belong together; a weight that is missing is never made up."
            )


def _listed(kind: str, keys: Sequence[str]) -> list[str]:
    lines = [f"  {kind}: {key}" for key in keys[:MAX_LISTED]]
    if len(keys) > MAX_LISTED:
        lines.append(f"  {kind}: and {len(keys) - MAX_LISTED} more")
    return lines
