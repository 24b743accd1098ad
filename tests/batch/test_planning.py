"""Which pictures are found, and where each result goes."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from batch.pictures import options, save
from supir.batch.planning import Wanted, find_wanted, plan_batch
from supir.errors import OptionError


def targets(inputs: list[str], out: str = "out") -> list[str]:
    wanted, failures = find_wanted(inputs, Path(out), options())
    assert failures == []
    return [job.target.as_posix() for job in plan_batch(wanted, Path(out))]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for seed, name in enumerate(("1.png", "a/1.png", "a/b/2.jpg", "a/b/2.restored.jpg", ".hidden/3.png")):
        save(tmp_path / "photos" / name, seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


@pytest.mark.usefixtures("photos")
def test_folders_are_kept() -> None:
    assert targets(["photos"]) == ["out/1.png", "out/a/1.png", "out/a/b/2.jpg"]
    assert targets(["photos/*/b/*.jpg"]) == ["out/a/b/2.jpg"]
    assert targets(["photos/a/**/*"]) == ["out/1.png", "out/b/2.jpg"]
    assert targets(["photos/a/b/2.restored.jpg"]) == ["out/2.restored.jpg"]


@pytest.mark.usefixtures("photos")
def test_the_same_picture_is_taken_once_and_the_output_is_no_input() -> None:
    first = targets(["photos", "./photos/a", "photos/**/*"], "photos/out")
    assert first == ["photos/out/1.png", "photos/out/a/1.png", "photos/out/a/b/2.jpg"]
    save(Path("photos/out/1.png"))
    assert targets(["photos", "photos/**/*"], "photos/out") == first


@pytest.mark.usefixtures("photos")
def test_an_input_that_stands_for_nothing_does_not_hide_the_others() -> None:
    Path("empty").mkdir()
    wanted, failures = find_wanted(["nowhere", "empty", "no*.png", "photos/1.png"], Path("out"), options())
    assert [picture.place for picture in wanted] == [PurePath("1.png")]
    assert [str(outcome.source) for outcome in failures] == ["nowhere", "empty", "no*.png"]
    _, [outcome] = find_wanted(["photos"], Path("photos"), options())
    assert "no picture but results" in str(outcome.error)
    assert all(outcome.error and outcome.target is None for outcome in failures)


@pytest.mark.usefixtures("photos")
def test_names_that_collide_are_both_named() -> None:
    with pytest.raises(OptionError, match=r"photos/1\.png and photos/a/1\.png would both be written to out/1\.png"):
        targets(["photos/1.png", "photos/a"])
    twice = [Wanted(source=Path(name), place=PurePath(name), options=options()) for name in ("x.gif", "x.png")]
    with pytest.raises(OptionError, match=r"x\.gif and x\.png would both"):
        plan_batch(twice, Path("out"))


@pytest.mark.usefixtures("photos")
def test_an_input_is_never_overwritten_and_nothing_leaves_the_output_folder() -> None:
    with pytest.raises(OptionError, match="never overwritten"):
        targets(["photos/1.png"], "photos")
    Path("out").mkdir()
    Path("out/a").symlink_to(Path("photos/a").resolve())
    with pytest.raises(OptionError, match="leads out of out by a link"):
        targets(["photos"])


def test_variants_are_named_by_their_seed() -> None:
    wanted = [Wanted(source=Path("x.bmp"), place=PurePath("a/x.bmp"), options=options(seed=7))]
    jobs = plan_batch(wanted, Path("out"), variants=3)
    assert [(job.target.as_posix(), job.options.seed) for job in jobs] == [
        (f"out/a/x.s{seed}.png", seed) for seed in (7, 8, 9)
    ]
    with pytest.raises(OptionError, match="seed"):
        plan_batch([Wanted(source=Path("x"), place=PurePath("x"), options=options(seed=2**63 - 1))], Path(), variants=2)
