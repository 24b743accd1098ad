"""What workers do in the tests of the pool: a module of its own, since they import it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supir.errors import DeviceLostError, MissingExtraError, SupirError
from supir.pool import Report


class OddError(Exception):
    """One that does not survive being sent."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Unreadable:
    """A task that cannot be read where it arrives."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise ValueError("Unreadable")


@dataclass(frozen=True)
class Open:
    """A worker that does what a task says: ("square", 3), ("die", path) once, ("wait", steps), ("meet", notes) ..."""

    notes: Path | None = None
    on_gpu: bool = False

    def __call__(self, place: int) -> Any:
        if self.notes is not None:
            with (self.notes / "opened").open("a") as file:
                file.write(f"{os.getpid()} {place} {os.environ['OMP_NUM_THREADS']}\n")
        return _work

    def opened(self) -> list[list[str]]:
        """(process, place, threads) of each worker."""
        assert self.notes is not None
        return [line.split() for line in (self.notes / "opened").read_text().splitlines()]


@dataclass(frozen=True)
class Broken:
    """A worker that cannot begin."""

    how: str
    on_gpu: bool = False

    def __call__(self, place: int) -> Any:
        if self.how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        raise SupirError("no weights there") if self.how == "says" else OddError(1, 2)


def _work(task: tuple[str, Any], report: Report) -> Any:
    what, value = task
    if what == "wait":
        for step in range(value):
            time.sleep(0.02)
            report(step)
        return value
    if what == "meet":
        while len((value / "opened").read_text().splitlines()) < 2:
            time.sleep(0.01)
    if what == "raise":
        raise value
    if what == "missing":
        raise MissingExtraError("package", "extra", "this")
    if what == "odd":
        raise OddError(3, 4)
    if what == "die":
        _once(value, lambda: os.kill(os.getpid(), signal.SIGKILL))
    if what == "lose":
        _once(value, _lose)
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return value * value if what == "square" else str(value)


def _once(mark: Path, what: Any) -> None:
    if not mark.exists():
        mark.touch()
        what()


def _lose() -> None:
    raise DeviceLostError("the device is gone")


def square(number: int) -> int:
    """A call as a task."""
    return number * number


def slow_pid(seconds: float, note: str = "") -> int:
    """Who did it; noted in a file when it is begun."""
    if note:
        with Path(note).open("a") as file:
            file.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return os.getpid()
