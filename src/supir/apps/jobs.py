"""Which pictures are restored, where each result goes, and the loop over them.

One picture that fails does not stop the others. No typer, rich or torch here: `supir.apps.cli` brings them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from supir.errors import ImageError, ImageWriteError, OptionError, SupirError

if TYPE_CHECKING:
    from supir.options import RestoreOptions
    from supir.pipeline import SupirPipeline
    from supir.sampling.solvers import Step

MARK = ".restored"
"""Added to the name of a result that lies beside its input."""

COMPARE_MARK = ".compare"
"""Added to the name of a result for its before-and-after sheet."""

RESULT_ENDINGS = (MARK, MARK + COMPARE_MARK)


@dataclass(frozen=True)
class Job:
    """One picture to restore: read `source`, write `target`, and the before-and-after sheet if `compare` is given."""

    source: Path
    target: Path
    compare: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one picture; `error` is None when it was restored, else the sentence to show."""

    source: Path
    target: Path | None
    compare: Path | None
    seconds: float
    error: str | None = None
    unexpected: str = ""


class Interruption:
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


def find_sources(inputs: Sequence[str]) -> tuple[list[Path], list[Outcome]]:
    """The picture files that the inputs (files, folders, glob patterns) stand for, and the inputs that stand for none.

    A mistyped input does not hide the others. Results of an earlier run that lie beside their inputs are restored again
    only when named, not when their folder is.
    """
    from supir.image import find_pictures

    failures: list[Outcome] = []

    def fail(error: ImageError) -> None:
        failures.append(Outcome(error.path or Path(), None, None, 0.0, str(error)))

    found = find_pictures(inputs, on_error=fail)
    return [path for path in found if str(path) in inputs or not path.stem.endswith(RESULT_ENDINGS)], failures


def plan_jobs(sources: Sequence[Path], output: str | None, *, suffixes: Sequence[str], compare: bool) -> list[Job]:
    """Say where each result goes.

    Without `output` it lies beside its input with `.restored` in its name. `output` is a file when there is one input
    and it has a suffix, and is otherwise a folder that keeps the names. The input's suffix is kept when it can be
    written, else the result is a PNG.

    Args:
        sources: the pictures.
        output: a file or folder as the user typed it, or None.
        suffixes: those that can be written, in lower case with the dot.
        compare: also plan a before-and-after sheet, `NAME.compare.SUFFIX` beside the result.

    Raises:
        OptionError: a result would overwrite its own or another input, two results would have one name, or the
            suffix asked for cannot be written.
    """
    single_file = output is not None and _is_file_name(output, len(sources))
    jobs = []
    for source in sources:
        suffix = source.suffix if source.suffix.lower() in suffixes else ".png"
        if output is None:
            target = source.with_name(f"{source.stem}{MARK}{suffix}")
        elif single_file:
            target = Path(output)
        else:
            target = Path(output) / f"{source.stem}{suffix}"
        if target.suffix.lower() not in suffixes:
            raise OptionError(f"--output {target}: cannot write {target.suffix!r}; use one of {' '.join(suffixes)}")
        sheet = target.with_name(f"{target.stem}{COMPARE_MARK}{target.suffix}")
        jobs.append(Job(source, target, sheet if compare else None))
    _check_targets(jobs)
    return jobs


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


def _check_targets(jobs: Sequence[Job]) -> None:
    inputs = {os.path.realpath(job.source) for job in jobs}
    taken: dict[str, Path] = {}
    for job in jobs:
        for target in filter(None, (job.target, job.compare)):
            place = os.path.realpath(target)
            if place in inputs:
                raise OptionError(f"{target} is an input and is never overwritten; choose another --output")
            if place in taken:
                raise OptionError(
                    f"{taken[place]} and {job.source} would both be written to {target}; restore them one by one"
                    " or into different folders"
                )
            taken[place] = job.source


def run_jobs(
    pipeline: SupirPipeline,
    jobs: Sequence[Job],
    options: RestoreOptions,
    *,
    overwrite: bool = False,
    on_fraction: Callable[[int, float], None] = lambda index, fraction: None,
) -> Iterator[Outcome]:
    """Restore picture after picture; an outcome follows each, whether it was restored or not.

    Args:
        pipeline: restores one picture after the other.
        jobs: what to restore.
        options: how.
        overwrite: replace results that already exist; without it such a picture is an error.
        on_fraction: called with the job's index and how much of its sampling is done, from 0 to 1.
    """
    for index, job in enumerate(jobs):
        start = time.perf_counter()

        def on_step(step: Step, index: int = index) -> None:
            on_fraction(index, (step.index + 1) / step.num_steps)

        error, unexpected = None, ""
        try:
            _restore_one(pipeline, job, options, overwrite, on_step)
        except (SupirError, OSError, MemoryError) as caught:
            error = str(caught) or type(caught).__name__
        except Exception as caught:  # a mistake of ours in one picture must not cost the user the other pictures
            error, unexpected = f"{type(caught).__name__}: {caught}", traceback.format_exc()
        seconds = time.perf_counter() - start
        done = error is None
        yield Outcome(
            job.source, job.target if done else None, job.compare if done else None, seconds, error, unexpected
        )


def _restore_one(
    pipeline: SupirPipeline, job: Job, options: RestoreOptions, overwrite: bool, on_step: Callable[[Step], None]
) -> None:
    from supir import image

    for target in filter(None, (job.target, job.compare)):
        if target.exists() and not overwrite:
            raise ImageWriteError(f"{target} exists; pass --overwrite to replace it", target)
    picture = image.read(job.source)
    [restored] = pipeline([picture], options, on_step=on_step)
    image.write(restored.picture, job.target, record=restored.record)
    if job.compare is not None:
        image.write(image.side_by_side(picture, restored.picture), job.compare)
