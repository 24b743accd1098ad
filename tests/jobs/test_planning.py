"""Which pictures are found, and where each result goes."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePath

import pytest

from folding_disk import FoldingDisk
from jobs.pictures import options, save
from supir.errors import OptionError
from supir.jobs.plan import BatchItem, discover, plan_batch


def targets(inputs: list[str], out: str = "out") -> list[str]:
    wanted, failures = discover(inputs, Path(out), options())
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
def test_a_linked_file_keeps_its_own_place_and_a_named_result_is_taken() -> None:
    Path("photos/a/link.png").symlink_to(Path("photos/1.png").resolve())
    Path("photos/again").symlink_to(Path("photos/a").resolve())
    assert targets(["photos"]) == ["out/1.png", "out/a/1.png", "out/a/b/2.jpg", "out/a/link.png"]
    assert targets(["./photos//a/b/2.restored.jpg"]) == ["out/2.restored.jpg"]


@pytest.mark.usefixtures("photos")
def test_the_output_folder_is_known_by_any_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(Path("photos/out/1.png"))
    Path("photos/batch.jsonl").touch()
    Path("elsewhere").symlink_to(Path("photos/out").resolve())
    whole = ["a/1.png", "a/b/2.jpg", "1.png"]
    FoldingDisk(tmp_path, monkeypatch)
    for out in ("photos/OUT", "elsewhere", "./photos//out", "PHOTOS/out"):
        for name in ("photos", "photos/**/*", "photos/**"):
            wanted, failures = discover([name], Path(out), options())
            assert failures == []
            assert {picture.place.as_posix() for picture in wanted} == set(whole)


def test_results_that_would_fall_together_on_this_disk_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FoldingDisk(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    nfc, nfd = (unicodedata.normalize(form, "Café.png") for form in ("NFC", "NFD"))
    for one, other in (("IMG_1.JPG", "img_1.jpg"), ("a/x.png", "A/X.png"), (nfc, nfd)):
        wanted = [
            BatchItem(source=Path(f"cam{number}") / name, place=PurePath(name), options=options())
            for number, name in enumerate((one, other))
        ]
        with pytest.raises(OptionError, match=r"would both be written to .*, which this disk takes for "):
            plan_batch(wanted, Path("out"))
    save(Path("IMG.png"))
    wanted = [BatchItem(source=Path("IMG.png"), place=PurePath("img.png"), options=options())]
    with pytest.raises(OptionError, match=r"img\.png is the input IMG\.png and is never overwritten"):
        plan_batch(wanted, Path())


@pytest.mark.usefixtures("photos")
def test_an_input_that_stands_for_nothing_does_not_hide_the_others() -> None:
    Path("empty").mkdir()
    wanted, failures = discover(["nowhere", "empty", "no*.png", "photos/1.png"], Path("out"), options())
    assert [picture.place for picture in wanted] == [PurePath("1.png")]
    assert [str(outcome.source) for outcome in failures] == ["nowhere", "empty", "no*.png"]
    save(Path("own/1.restored.png"))
    _, [outcome] = discover(["own"], Path("out"), options())
    assert "no picture but results" in str(outcome.error)
    assert all(outcome.error and outcome.target is None for outcome in failures)


@pytest.mark.usefixtures("photos")
def test_names_that_collide_are_both_named() -> None:
    with pytest.raises(OptionError, match=r"photos/1\.png and photos/a/1\.png would both be written to out/1\.png"):
        targets(["photos/1.png", "photos/a"])
    twice = [BatchItem(source=Path(name), place=PurePath(name), options=options()) for name in ("x.gif", "x.png")]
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
    wanted = [BatchItem(source=Path("x.bmp"), place=PurePath("a/x.bmp"), options=options(seed=7))]
    jobs = plan_batch(wanted, Path("out"), variants=3)
    assert [(job.target.as_posix(), job.options.seed) for job in jobs] == [
        (f"out/a/x.s{seed}.png", seed) for seed in (7, 8, 9)
    ]
    with pytest.raises(OptionError, match="seed"):
        plan_batch(
            [BatchItem(source=Path("x"), place=PurePath("x"), options=options(seed=2**63 - 1))], Path(), variants=2
        )
