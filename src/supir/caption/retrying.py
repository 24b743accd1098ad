"""Asking again when a server is busy, and how long to wait before."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from supir.errors import CaptionError

__all__ = ["Busy", "Retrying"]

Answer = TypeVar("Answer")


class Busy(Exception):
    """Another try may do.

    Args:
        error: what to say if none does.
        retry_after: the header of that name, as it came (RFC 9110, section 10.2.3).
    """

    def __init__(self, error: CaptionError, retry_after: str | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


@dataclass(frozen=True, kw_only=True)
class Retrying:
    """How often, and after which time."""

    num_tries: int = 4
    first_wait: float = 1.0
    """Seconds before the second try; each further wait is twice as long."""
    max_wait: float = 60.0
    """Seconds; a server that asks for more is not waited for."""
    sleep: Callable[[float], None] = time.sleep

    def __call__(self, ask: Callable[[], Answer]) -> Answer:
        """The answer, after as many tries as it takes.

        Raises:
            CaptionError: what the last `Busy` holds.
        """
        for number in range(self.num_tries):
            try:
                return ask()
            except Busy as busy:
                asked = _seconds(busy.retry_after)
                if number == self.num_tries - 1 or (asked or 0) > self.max_wait:
                    raise busy.error from None
                wait = min(self.first_wait * 2**number, self.max_wait)
            self.sleep(max(wait, asked or 0))
        raise AssertionError("num_tries is at least 1")


def _seconds(header: str | None) -> float | None:
    """Seconds that the header asks for, given as such or as a date; None when it says nothing of use."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(email.utils.parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
