"""Asking again: the one loop, for those whose errors say when."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TypeVar

from supir.errors import SupirError

Answer = TypeVar("Answer")


def retry(
    ask: Callable[[], Answer], wait: Callable[[SupirError, int], float | None], sleep: Callable[[float], None]
) -> Answer:
    """The answer, after as many tries as it takes.

    Args:
        ask: called again and again.
        wait: seconds before the next try, by the error that came and the number of tries before it; None raises it.
        sleep: waits.

    Raises:
        SupirError: as ``ask``, once nothing is waited for.
    """
    for number in count():
        try:
            return ask()
        except SupirError as error:
            seconds = wait(error, number)
            if seconds is None:
                raise
        sleep(seconds)
    raise AssertionError  # the numbers do not end
