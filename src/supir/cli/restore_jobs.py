"""What `supir restore` restores, where each result goes, and the loop over the pictures.

One picture that fails does not stop the others. No typer, rich or torch here: `supir.cli.main` brings them.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from supir.errors import ImageError, ImageWriteError, OptionError
from supir.jobs.job import Job, Outcome
from supir.jobs.plan import COMPARE_SUFFIX, RESULT_SUFFIX, check_targets, is_result, writable
from supir.jobs.restoring import check_written, restore_job

if TYPE_CHECKING:
    from supir.options import RestoreOptions
    from supir.pipeline import SupirPipeline


class SigintGuard:
    """A context manager that remembers Ctrl-C.

    Python drops the KeyboardInterrupt that arrives while a C library is calling back (libvips logs in that way), and
    the run would go on as if nobody had asked; `check` raises it again.
    """

    def __init__(self) -> None:
        self._asked = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handler, nor needs one
            self._previous = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._previous)

    def check(self) -> None:
        """Raise KeyboardInterrupt if it was asked for."""
        if self._asked:
            raise KeyboardInterrupt

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        raise KeyboardInterrupt


def find_sources(inputs: Sequence[str], *, results: bool = True) -> tuple[list[Path], list[Outcome]]:
    """The picture files that the inputs (files, folders, glob patterns) stand for, and the inputs that stand for none.

    A mistyped input does not hide the others.

    Args:
        inputs: as the user typed them.
        results: whether a folder or a pattern also stands for the results of `supir restore` in it; one that is named
            is always taken.
    """
    from supir.image import find_pictures

    failures: list[Outcome] = []

    def fail(error: ImageError) -> None:
        failures.append(Outcome(source=error.path or Path(), error=str(error)))

    return find_pictures(inputs, on_error=fail, leave_out=(lambda _: False) if results else is_result), failures


def plan_jobs(sources: Sequence[Path], output: str | None, options: RestoreOptions, *, compare: bool) -> list[Job]:
    """Say where each result goes.

    Without `output` it lies beside its input with `.restored` in its name. `output` is a file when there is one input
    and it has a suffix, and is otherwise a folder that keeps the names. The input's suffix is kept when it can be
    written, else the result is a PNG.

    Args:
        sources: the pictures.
        output: a file or folder as the user typed it, or None.
        options: how each is restored.
        compare: also plan a before-and-after sheet, `NAME.compare.SUFFIX` beside the result.

    Raises:
        OptionError: a result would overwrite its own or another input, two results would have one name, or the
            suffix asked for cannot be written.
    """
    from supir.image import SUFFIXES

    single_file = output is not None and _is_file_name(output, len(sources))
    jobs = []
    for source in sources:
        if output is None:
            target = source.with_name(f"{source.stem}{RESULT_SUFFIX}{writable(source)}")
        elif single_file:
            target = Path(output)
        else:
            target = Path(output) / f"{source.stem}{writable(source)}"
        if target.suffix.lower() not in SUFFIXES:
            raise OptionError(f"--output {target}: cannot write {target.suffix!r}; use one of {' '.join(SUFFIXES)}")
        sheet = target.with_name(f"{target.stem}{COMPARE_SUFFIX}{target.suffix}") if compare else None
        jobs.append(Job(source=source, target=target, options=options, compare=sheet))
    check_targets(jobs)
    return jobs


def part_writable(jobs: Sequence[Job]) -> tuple[list[Job], list[Outcome]]:
    """The jobs whose results can be written, and the failures of the others: known before the weights are loaded.

    What is wrong with a picture that is read is left to its turn.
    """
    kept, failures = [], []
    for job in jobs:
        try:
            check_written(job)
        except ImageWriteError as error:
            failures.append(Outcome(source=job.source, target=job.target, error=str(error)))
            continue
        except ImageError:
            pass
        kept.append(job)
    return kept, failures


def effort(job: Job) -> float:
    """How long a picture will take, relative to others: its pixels, and something for opening and closing any file.

    A file that will be refused costs next to nothing.
    """
    from supir.image import MAX_PIXELS, read_size

    try:
        width, height = read_size(job.source)
    except ImageError:
        return 1.0
    return 1e5 + width * height if width * height <= MAX_PIXELS else 1.0


def _is_file_name(output: str, num_sources: int) -> bool:
    path = Path(output)
    return num_sources == 1 and bool(path.suffix) and not path.is_dir() and not output.endswith(("/", os.sep))


def run_jobs(
    pipeline: SupirPipeline,
    jobs: Sequence[Job],
    *,
    overwrite: bool = False,
    on_fraction: Callable[[Job, float], None] = lambda job, fraction: None,
) -> Iterator[Outcome]:
    """Restore picture after picture; an outcome follows each, whether it was restored or not.

    Args:
        pipeline: restores one picture after the other.
        jobs: what to restore.
        overwrite: replace results that already exist; without it such a picture is an error.
        on_fraction: called with the job and how much of its sampling is done, from 0 to 1.
    """
    for job in jobs:
        yield restore_job(pipeline, job, overwrite=overwrite, on_fraction=functools.partial(on_fraction, job))
