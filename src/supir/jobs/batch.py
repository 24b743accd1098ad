"""`run_batch`: every job done once, however often it is interrupted.

OUT/a/b.png       results, under the names that were planned
OUT/batch.jsonl   a line for each that is finished or failed; this process alone writes it
OUT/report.json   what the last run came to

A result is done only while its line says so: made from the bytes that its source holds now, with the options and
weights asked for now, and its file holds the bytes that were written. Anything else is made again.
"""

from __future__ import annotations

import itertools
import json
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supir import __version__
from supir.errors import SupirError
from supir.files import add_entries, alone, check_ours, read_entries, sentence, sweep, write_whole
from supir.jobs.auditing import check_audits
from supir.jobs.captioning import Captioning, add_captions
from supir.jobs.job import Job, Outcome, settings_sha256
from supir.jobs.model import Model
from supir.jobs.restoring import OpenModel
from supir.options.restore import AS_ALL_ELSE
from supir.pool import MAX_TRIES, Done, Runner, Serial, WorkerPool

if TYPE_CHECKING:
    from supir.restoration.work import Reached

LOG, REPORT = "batch.jsonl", "report.json"
_LOCK = ".batch.lock"


class OtherDeviceWarning(UserWarning):
    """Results of an earlier run are made again, since they may come from another device or arithmetic."""


def run_batch(
    jobs: Sequence[Job],
    out: Path | str | None,
    *,
    model: Model | None = None,
    runner: Runner[Any] | None = None,
    captioning: Captioning | None = None,
    overwrite: bool = True,
    known: Iterable[Outcome] = (),
    on_work: Callable[[Job, Reached], None] = lambda job, reached: None,
) -> Generator[Outcome, None, None]:
    """Make every result that is not there yet; an outcome follows each job, in the order in which they are finished.

    What failed in an earlier run is tried again. Close the iterator to end early: workers end at once, and nothing
    half-written is left.

    Args:
        jobs: what to make, every target inside ``out`` and no two alike (`supir.jobs.plan`).
        out: the batch's folder; made if it is not there. None: there is none, nor a log, and every job is done.
        model: the weights; unset: the bundled small model.
        runner: who works; unset: this process. It is not closed here.
        captioning: who is asked for words, before any worker starts, where a job has no prompt.
        overwrite: replace what lies where a result goes and is not what would be made; without it that is an error.
        known: failures found while the jobs were planned, for the report alone.
        on_work: told how far the work on a job is, where the runner tells.

    Raises:
        OptionError: ``out`` holds something that no batch made, a device is not there, or an audit cannot promise
            what is asked of it.
        MissingExtraError: an audit is to count words, or faces are to be found, and nothing that does is installed.
        WeightsError: the weights cannot be opened, or a LoRA is missing or of another base.
        CaptionerError: the captioner cannot be used; nothing was restored.
        SupirError: another batch is at work in ``out``, or the folder cannot be written.
    """
    model, runner = model or Model(), runner or Serial()
    start = time.perf_counter()
    model.check_loras(job.options.lora for job in jobs)
    model.check_first(job.options.first for job in jobs)
    check_audits(jobs)
    for asked in {job.options.faces for job in jobs} - {AS_ALL_ELSE}:
        from supir.image import check_faces

        check_faces(f"faces {asked}")
    placed = model.placed(runner.device)  # the previews for a captioner are made here, wherever the workers are
    with nullcontext() if out is None else opened(Path(out)) as log:
        outcomes = list(known)
        num_jobs = len(jobs)
        uncaptioned: list[Outcome] = []
        try:
            if captioning is not None:
                # About those that will be refused nobody need be asked.
                jobs, uncaptioned = add_captions(jobs, captioning, model, lambda job: overwrite or not job.taken)
            todo = jobs if log is None else _tasks(jobs, log, placed)
            tasks = itertools.chain(map(Done, uncaptioned), todo)
            with WorkerPool(runner, OpenModel(placed, overwrite)) as pool:
                for outcome in pool.run(tasks, given_up=_given_up, on_report=on_work):
                    if log is not None:
                        outcome = _noted(outcome, log)
                    outcomes.append(outcome)
                    yield outcome
        finally:
            if out is not None:
                report = _report(outcomes, num_jobs, placed, runner, time.perf_counter() - start)
                if captioning is not None:
                    report["captioner"] = captioning.captioner.name
                write_whole(Path(out) / REPORT, json.dumps(report, indent=1) + "\n")


def _given_up(job: Job) -> Outcome:
    error = (
        f"{job.source}: {MAX_TRIES} workers died at it, most often for lack of memory; try it with fewer workers or"
        " smaller tiles"
    )
    return Outcome(source=job.source, target=job.target, error=error)


def _noted(outcome: Outcome, log: Log) -> Outcome:
    """Written down; a result of which that cannot be done is as good as none, for it will be made again."""
    try:
        if not outcome.skipped:
            log.add(outcome)
    except OSError as error:
        if outcome.error is None:
            why = sentence(error, log.path, failed="cannot be written")
            return replace(outcome, error=f"{outcome.target}: is made, but will be made again: {why}")
    return outcome


def _tasks(jobs: Iterable[Job], log: Log, model: Model) -> Iterator[Job | Done[Outcome]]:
    """The jobs, and in place of each that is done the outcome that says so."""
    told = False
    for job in jobs:
        lora = job.options.lora
        former = not (lora or job.options.first) and log.holds(
            job, settings_sha256(job.options, model.former_identity, job.audit)
        )
        now = settings_sha256(job.options, model.identity_with(job.options), job.audit)
        if log.holds(job, now) or (former and model.on_processor):
            yield Done(Outcome(source=job.source, target=job.target, skipped=True))
            continue
        if former and not told:
            told = True
            warnings.warn(
                f"{job.target} and perhaps others were made on a processor, or by version 0.1.0, which did not note"
                f" where; they are made again: {model.identity.get('networks', 'float32 on a processor')}",
                OtherDeviceWarning,
                stacklevel=2,
            )
        yield job


def _report(
    outcomes: list[Outcome], num_jobs: int, model: Model, runner: Runner[Any], seconds: float
) -> dict[str, Any]:
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    num_skipped = sum(outcome.skipped for outcome in outcomes)
    num_planned = sum(outcome.target is not None for outcome in outcomes)
    return {
        "software": f"supir {__version__}",
        **model.identity,
        "runner": type(runner).__name__,
        "workers": runner.num_workers,
        "seconds": round(seconds, 3),
        "done": len(outcomes) - num_skipped - len(failed),
        "skipped": num_skipped,
        "failed": len(failed),
        "not_reached": num_jobs - num_planned,
        "failures": [
            {"input": str(bad.source), "output": str(bad.target) if bad.target else None, "error": bad.error}
            for bad in failed
        ],
        "log": LOG,
    }


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
            line |= {"audit": dict(outcome.audit)} if outcome.audit else {}
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
