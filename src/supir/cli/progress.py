"""What is shown on the terminal while pictures are restored: one bar over all pictures and steps, a line a picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

from supir.cli.errors import check_interrupted, one_line, say, show_error, show_warning
from supir.cli.words import said
from supir.errors import ImageError
from supir.jobs.batch import run_batch
from supir.jobs.captioning import Captioning
from supir.jobs.job import Job, Outcome
from supir.jobs.plan import find_sources

if TYPE_CHECKING:
    from supir.restoration.work import Reached


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


MEASURED = 1.0
"""Percent of the work from which on a pace is told."""
EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


class _Moving(Progress):
    """Asks how far the work is whenever it is drawn."""

    def __init__(self, ask: Callable[[], None], *columns: str | ProgressColumn, **more: Any) -> None:
        self._ask = ask
        super().__init__(*columns, **more)

    def get_renderables(self) -> Iterable[RenderableType]:
        """As in rich."""
        if self.tasks:
            self._ask()
        yield from super().get_renderables()


class RemainingTime(ProgressColumn):
    """Remaining time, from the mean pace so far.

    rich's own column looks at the last 30 seconds only; a single step of a large model can take longer than that.
    """

    def render(self, task: Task) -> Text:
        """The column's text for one task."""
        if task.finished:
            return Text(said(f"{clock(task.elapsed or 0.0)} in all"))
        left = remaining(task)
        return Text(said("estimating" if left is None else f"{clock(left)} left"))


def remaining(task: Task) -> float | None:
    """Seconds that the rest will take, from the mean pace since the work began; None before there is one."""
    at_work = (task.elapsed or 0.0) - (task.fields.get("opening") or 0.0)
    return at_work * (100 / task.percentage - 1) if at_work > 0 and task.percentage > MEASURED else None


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display:
    """A context manager that shows the work on `jobs`; without a terminal by a line a picture, and one now and then."""

    def __init__(
        self,
        console: Console,
        jobs: Sequence[Job],
        *,
        quiet: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._now, self._told = console, now, now()
        hidden = quiet or not console.is_terminal
        # The bar and the remaining time count effort: a large picture takes longer than a small one. Where no bar is
        # shown, no file is opened for it.
        self._jobs, self._measured = jobs, not hidden
        self._efforts = {job.target: 1.0 if hidden else effort(job) for job in jobs}
        self._at_work: dict[Path, tuple[Reached, float]] = {}  # how far pictures are, and when that was told
        self._finished: set[Path] = set()
        self._skipped: set[Path] = set()  # no time was spent on them, and the time that remains is told by that
        self._quiet = quiet
        self._num_done = 0
        self._bar = _Moving(
            self._update,
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn(said("picture") + " {task.fields[number]}/{task.fields[pictures]}"),
            RemainingTime(),
            console=console,
            disable=hidden,
            transient=True,
            get_time=now,
        )
        self._task = self._bar.add_task(
            said("beginning"), total=sum(self._efforts.values()), number=1, pictures=len(jobs), opening=None
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def work(self, job: Job, reached: Reached) -> None:
        """A picture's restoration is so far."""
        self._at_work[job.target] = reached, self._now()
        self._update(one_line(job.source.name))
        [task] = self._bar.tasks
        if task.fields["opening"] is None:  # the weights are open now; how long that took says nothing of the work
            self._bar.update(self._task, opening=task.elapsed or 0.0)
        elif not self._quiet and not self._console.is_terminal and self._now() - self._told >= EVERY:
            self._told = self._now()
            if not self._measured:
                self._measured, self._efforts = True, {job.target: effort(job) for job in self._jobs}
                self._update()
            left = remaining(task)
            text = f"{job.source}: {task.percentage:.0f} %"
            say(self._console, one_line(text if left is None else f"{text}, {said(f'{clock(left)} left')}"))

    def captions(self, done: int, total: int) -> None:
        """So many pictures have their words; nothing is restored before all have."""
        self._bar.update(self._task, description=said(f"captions {done}/{total}") if done < total else "")

    def outcome(self, outcome: Outcome) -> None:
        """Say in a line what became of a picture; failures are said even when quiet."""
        self._num_done += 1
        target = outcome.target or Path()
        self._at_work.pop(target, None)
        (self._skipped if outcome.skipped else self._finished).add(target)
        self._update()
        for text in outcome.warnings:
            show_warning(self._console, text)
        if outcome.error is not None:
            show_failure(self._console, outcome)
        elif not self._quiet and not outcome.skipped:
            count = f"[{self._num_done}/{len(self._efforts)}] "
            text = f"{count}{outcome.source} -> {outcome.target} ({outcome.seconds:.1f} s)"
            say(self._console, one_line(text))
        if outcome.audit:
            self._audited(outcome)

    def _audited(self, outcome: Outcome) -> None:
        """Say what an audit found; past a limit also when quiet."""
        if not self._quiet:
            say(self._console, f"  {one_line(outcome.audit['says'])}")
        for clause in outcome.audit["past_limits"]:
            show_warning(self._console, f"{outcome.target} is past a limit: {clause}")

    def _update(self, name: str | None = None) -> None:
        efforts, number = self._efforts, min(self._num_done + 1, len(self._efforts))
        total = sum(size for target, size in efforts.items() if target not in self._skipped)
        completed = sum(efforts.get(target, 0.0) for target in self._finished)
        for target, (reached, told) in tuple(self._at_work.items()):
            completed += reached.after(self._now() - told).share * efforts[target]
        self._bar.update(self._task, completed=completed, total=total, description=name, number=number)


def run_shown(
    console: Console, jobs: Sequence[Job], outcomes: list[Outcome], *, captioning: Captioning | None, quiet: bool,
    **of_batch: Any,
) -> bool:  # fmt: skip
    """`run_batch`, shown; whether Ctrl-C ended it.

    Args:
        console: where.
        jobs: what to make.
        outcomes: failures known before; what becomes of the jobs is added as it comes.
        captioning: as `run_batch` takes it.
        quiet: show failures alone.
        of_batch: what else `run_batch` takes.
    """
    try:
        with Display(console, jobs, quiet=quiet) as display:

            def on_work(job: Job, reached: Reached) -> None:
                check_interrupted()
                display.work(job, reached)

            def on_caption(done: int, total: int) -> None:
                check_interrupted()
                display.captions(done, total)

            captioning = captioning and replace(captioning, on_progress=on_caption)
            known = tuple(outcomes)
            with closing(run_batch(jobs, captioning=captioning, known=known, on_work=on_work, **of_batch)) as run:
                for outcome in run:
                    outcomes.append(outcome)
                    display.outcome(outcome)
                    check_interrupted()
    except KeyboardInterrupt:
        return True
    return False


def show_failure(console: Console, outcome: Outcome) -> None:
    """One line naming the file that failed and why; a traceback only when the reason is a mistake of ours."""
    text = outcome.error or ""
    if str(outcome.source) not in text:
        text = f"{outcome.source}: {text}"
    show_error(console, one_line(text))
    if outcome.unexpected:
        say(console, outcome.unexpected)


def found_sources(console: Console, inputs: Sequence[str]) -> tuple[list[Path], int]:
    """The picture files that the inputs stand for, and how many inputs stand for none, each of which is said."""
    sources, missing = find_sources(inputs)
    for outcome in missing:
        show_failure(console, outcome)
    return sources, len(missing)
