"""What the terminal shows while pictures are restored."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from supir.cli.foretelling import about, foretell
from supir.cli.progress import Display, RemainingTime, clock, effort, remaining
from supir.jobs import Job, Model, Outcome
from supir.jobs.plan import with_fitting_scale
from supir.options import RestoreOptions
from supir.restoration.work import Reached, Work

NAMES = ("large.jpg", "text.jpg")


def job(source: Path | str, target: Path | str) -> Job:
    return Job(source=Path(source), target=Path(target), options=RestoreOptions())


def done(made: Job, seconds: float, error: str | None = None) -> Outcome:
    return Outcome(source=made.source, target=made.target, seconds=seconds, error=error)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3600 * 26 + 61, "26:01:01")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_remaining_time_counts_all_pictures() -> None:
    now = 100.0
    progress = Progress(get_time=lambda: now)
    task_id = progress.add_task("", total=4)
    [task] = progress.tasks
    column = RemainingTime()
    assert "left" not in column.render(task).plain
    now += 60
    progress.update(task_id, completed=0.5)  # half of the first of four pictures took a minute
    assert column.render(task).plain == "7:00 left"
    now += 600  # one long step: the estimate stays one
    progress.update(task_id, completed=1)
    assert column.render(task).plain == "33:00 left"
    progress.update(task_id, completed=4)
    assert "in all" in column.render(task).plain


def test_a_line_per_picture_without_a_terminal() -> None:
    file = io.StringIO()
    jobs = [job("a.jpg", "a.restored.jpg"), job("[b].jpg", "b.jpg")]
    with Display(Console(file=file, width=40), jobs) as display:
        display.work(jobs[0], Reached(0.5))
        display.outcome(done(jobs[0], 1.25))
        display.outcome(done(jobs[1], 0.5, "damaged"))
    assert file.getvalue().splitlines() == ["[1/2] a.jpg -> a.restored.jpg (1.2 s)", "error: [b].jpg: damaged"]


def test_a_large_picture_counts_for_more(tmp_path: Path) -> None:
    jobs = []
    for name, side in (("small.png", 100), ("large.png", 1000)):
        Image.new("L", (side, side)).save(tmp_path / name)
        jobs.append(job(tmp_path / name, tmp_path / f"out-{name}"))
    with Display(Console(file=io.StringIO(), force_terminal=True), jobs) as display:
        [task] = display._bar.tasks
        display.outcome(done(jobs[0], 1.0))
        assert task.percentage == pytest.approx(100 * (1e5 + 1e4) / (2e5 + 1e4 + 1e6))
        display.work(jobs[1], Reached(0.5))
        assert 50 < task.percentage < 60
        display.outcome(done(jobs[1], 1.0))
        assert task.finished


def test_several_pictures_at_once_and_those_that_are_done_already(tmp_path: Path) -> None:
    jobs = []
    for number, side in enumerate((100, 1000, 1000, 300)):
        Image.new("L", (side, side)).save(tmp_path / f"{number}.png")
        jobs.append(job(tmp_path / f"{number}.png", tmp_path / f"out-{number}.png"))
    with Display(Console(file=io.StringIO(), force_terminal=True), jobs) as display:
        [task] = display._bar.tasks
        display.work(jobs[1], Reached(0.25))
        display.work(jobs[2], Reached(0.75))
        display.outcome(Outcome(source=jobs[3].source, target=jobs[3].target, skipped=True))
        efforts = [effort(each) for each in jobs]
        assert task.total == sum(efforts[:3])  # what was done already takes no time, and tells nothing of the pace
        assert task.completed == 1.1e6
        display.outcome(done(jobs[2], 1.0))
        assert task.completed == pytest.approx(1.25 * 1.1e6)
        assert task.fields["number"] == 3


def test_a_picture_that_will_be_refused_counts_for_next_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (100, 100)).save(tmp_path / "large.png")
    jobs = [job(tmp_path / name, tmp_path / f"out-{name}") for name in ("text.png", "large.png", "missing.png")]
    assert effort(jobs[1]) == 1e5 + 1e4
    monkeypatch.setattr("supir.image.MAX_PIXELS", 9999)
    assert [effort(each) for each in jobs] == [1.0, 1.0, 1.0]


def test_without_a_bar_no_picture_is_opened_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supir.cli.progress.effort", lambda job: pytest.fail("opened"))
    jobs = [job("a.jpg", "b.jpg")]
    Display(Console(file=io.StringIO()), jobs)
    Display(Console(file=io.StringIO(), force_terminal=True), jobs, quiet=True)


class FakeTime:
    """A clock that goes on when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


PACES = {
    "as expected": dict.fromkeys(("encoding", "preview", "anchor", "sampling", "decoding", "writing"), 1.0),
    "a slower machine": dict.fromkeys(("encoding", "preview", "anchor", "sampling", "decoding", "writing"), 7.0),
    "parts that differ": {
        "encoding": 1.2,
        "preview": 0.9,
        "anchor": 1.1,
        "sampling": 0.8,
        "decoding": 0.9,
        "writing": 1.5,
    },
}


MANY = {"encoding": 12, "preview": 6, "anchor": 12, "sampling": 40, "decoding": 6}


@pytest.mark.parametrize(("paces", "tiles"), [*((paces, MANY) for paces in PACES.values()), (PACES["as expected"], {})])
@pytest.mark.parametrize("opening", [0.0, 40.0])
def test_the_remaining_time_is_right_within_a_third_from_the_first_tenth_on(
    paces: dict[str, float], opening: float, tiles: dict[str, int]
) -> None:
    clock, job_ = FakeTime(), job("a.jpg", "a.restored.jpg")
    expected = {"encoding": 40.0, "preview": 10.0, "anchor": 6.0, "sampling": 30.0, "decoding": 10.0, "writing": 4.0}
    whole = sum(expected[part] * paces[part] for part in expected)
    pace = None if tiles else sum(expected.values()) / whole  # of few tiles an earlier picture tells
    wrong: list[float] = []
    told: list[Reached] = []
    with Display(Console(file=io.StringIO(), width=100), [job_], now=clock) as display:
        clock.now += opening
        begun = clock.now

        def hear(reached: Reached) -> None:
            told.append(reached)
            display.work(job_, reached)

        work = Work(expected, hear, pace, clock)
        for part in expected:
            number = tiles.get(part, 1)
            for index in range(number):
                tile, moments = expected[part] * paces[part] / number, 8
                for moment in range(moments):  # it goes on to be right between two that are told
                    true = whole - (clock.now - begun)
                    if 0.01 < true / whole < 0.9:
                        display._update()
                        left = remaining(display._bar.tasks[0])
                        by_itself = told[-1].after(moment * tile / moments).seconds_left
                        assert left is not None
                        assert by_itself is not None
                        slack = max(true / 3, 0.03 * whole)  # at the very end a second is more than a third
                        wrong += [abs(left - true) / slack, abs(by_itself - true) / slack]
                    clock.now += tile / moments
                work.at(part, (index + 1) / number)
    assert len(wrong) > 60
    assert max(wrong) < 1


def test_without_a_terminal_a_line_now_and_then(tmp_path: Path) -> None:
    clock, file, jobs = FakeTime(), io.StringIO(), []
    for number, side in enumerate((100, 1000)):
        Image.new("L", (side, side)).save(tmp_path / f"{number}.png")
        jobs.append(job(tmp_path / f"{number}.png", tmp_path / f"out-{number}.png"))
    with Display(Console(file=file, width=200), jobs, now=clock) as display:
        display.work(jobs[1], Reached(1e-6))
        for tenth in range(1, 9):
            clock.now += 12.0
            display.work(jobs[1], Reached(tenth / 10))
    lines = [line.replace(str(tmp_path), "") for line in file.getvalue().splitlines()]
    assert lines == ["/1.png: 27 %, 1:36 left", "/1.png: 55 %, 1:00 left"]


def test_a_time_as_people_say_it() -> None:
    said = {
        3.0: "5 seconds",
        42.0: "40 seconds",
        58.0: "1 minute",
        480.0: "8 minutes",
        3600.0: "60 minutes",
        7500.0: "2 hours",
    }
    assert {seconds: about(seconds) for seconds in said} == {key: f"about {text}" for key, text in said.items()}


def test_the_bar_on_a_terminal_names_the_picture() -> None:
    file = io.StringIO()
    jobs = [job("a.jpg", "a.restored.jpg")]
    with Display(Console(file=file, width=120, force_terminal=True), jobs) as display:
        display.work(jobs[0], Reached(0.5))
        display._bar.refresh()
    assert "a.jpg" in file.getvalue()
    assert "50%" in file.getvalue()
    assert "picture 1/1" in file.getvalue()


def test_what_will_become_of_large_photos_is_foretold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (6000, 4000)).save(tmp_path / "large.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    monkeypatch.setattr("supir.planner.kept.kept_rate", lambda *_: 5e10)
    monkeypatch.setattr("supir.planner.kept.networks_of", lambda *_: pytest.fail("built for it"))
    model = Model(devices=("cpu",))
    jobs = [Job(source=tmp_path / name, target=tmp_path / f"out-{name}", options=model.options()) for name in NAMES]
    file = io.StringIO()
    foretell(Console(file=file, width=300), with_fitting_scale(jobs), model, scale_said=False)
    reason = "(at scale 1, since the result would be very large; --scale says another)"
    said = re.fullmatch(rf"6000 x 4000 to 6000 x 4000 {re.escape(reason)}, about (\d+) minutes\n", file.getvalue())
    assert said is not None, file.getvalue()
    many = with_fitting_scale(jobs[:1]) * 450  # of which every third is looked at
    foretell(Console(file=file, width=300), many, model, scale_said=False, at_once=2)
    total = re.fullmatch(r"450 pictures, about (\d+) hours", file.getvalue().splitlines()[1])
    assert total is not None, file.getvalue()
    assert int(total[1]) == pytest.approx(450 * int(said[1]) / 60 / 2, rel=0.05), "two at a time"
