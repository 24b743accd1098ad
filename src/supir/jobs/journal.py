"""What a batch has done, in its output folder: one line of JSON a finished or failed result, and who may write there.

A result is done only while its line says so: made from the bytes that its source holds now, with the options and
weights asked for now, and its file holds the bytes that were written. Anything else is made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from supir.errors import SupirError
from supir.files import add_entries, alone, check_ours, read_entries, sentence, sweep
from supir.jobs.job import Job, Outcome

LOG = "batch.jsonl"

_LOCK = ".batch.lock"


class Log:
    """The lines of a batch's output folder; only the process that opened it writes them."""

    def __init__(self, out: Path) -> None:
        self.path = out / LOG
        self._out = out
        self._done: dict[str, dict[str, Any]] = {}
        for line in read_entries(self.path):
            self._remember(line)

    def holds(self, job: Job, settings: str) -> bool:
        """Whether the job's result is there, as its line says, with these settings (`settings_sha256`)."""
        from supir.weights.catalog import file_hash

        line = self._done.get(self._name(job.target))
        if line is None or line.get("settings_sha256") != settings:
            return False
        try:
            return file_hash(job.target) == line["sha256"] and file_hash(job.source) == line["source_sha256"]
        except OSError:
            return False

    def add(self, outcome: Outcome) -> None:
        """Write down what became of a job; from here on killing this process loses none of it.

        Raises:
            OSError: there is no room for it; the lines before it are there.
        """
        assert outcome.target is not None
        line: dict[str, Any] = {"target": self._name(outcome.target), "source": str(outcome.source)}
        if outcome.error is None:
            line |= {name: getattr(outcome, name) for name in ("source_sha256", "settings_sha256", "sha256")}
            line |= {"words": dict(outcome.words)} if outcome.words else {}
        else:
            line["error"] = outcome.error
        line["seconds"] = round(outcome.seconds, 3)
        add_entries(self.path, line)
        self._remember(line)

    def _remember(self, line: dict[str, Any]) -> None:
        target = str(line.get("target"))
        if "sha256" in line:
            self._done[target] = line
        else:
            self._done.pop(target, None)

    def _name(self, target: Path) -> str:
        return target.relative_to(self._out).as_posix()


@contextmanager
def opened(out: Path) -> Iterator[Log]:
    """The log of an output folder, which is made; before and after, half-written files are taken away.

    Raises:
        OptionError: the folder holds something that no batch made.
        SupirError: it cannot be made or written, or another batch is at work in it.
    """
    try:
        check_ours(out, [LOG], "batch")
        out.mkdir(parents=True, exist_ok=True)
        with alone(out / _LOCK, "batch"):
            (out / LOG).touch()
            sweep(out, inside=True)
            try:
                yield Log(out)
            finally:
                sweep(out, inside=True)
    except OSError as error:
        raise SupirError(sentence(error, error.filename or out)) from error
