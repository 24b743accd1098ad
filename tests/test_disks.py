"""The commands on disks of other people: one that takes IMG.jpg and img.jpg for one name, and one that is full."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from folding_disk import FoldingDisk
from fuse_disks import mounted
from supir.cli.main import app
from tiny import save_tiny_model

QUICK = ("--steps", "1", "--min-size", "64", "--scale", "1", "--text-guidance", "1", "--device", "cpu")


def save(path: Path, seed: int = 0, side: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def words(result: Result) -> str:
    """What was said, without the frame that wraps it."""
    return " ".join(result.stderr.replace("│", " ").split())


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def by_fuse(kind: str, tmp_path: Path) -> Iterator[Path]:
    try:
        with mounted(kind, tmp_path) as disk:
            yield disk
    except (OSError, ImportError) as error:
        pytest.skip(f"no disk by FUSE here ({error}): apt-get install libfuse2, and pip install mfusepy")


@pytest.fixture(params=["simulated", "by FUSE"])
def folding(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk that takes names for one that differ in capitals or in how an accent is stored."""
    if request.param == "by FUSE":
        yield from by_fuse("folding", tmp_path)
    else:
        (tmp_path / "disk").mkdir()
        FoldingDisk(tmp_path / "disk", monkeypatch)
        yield tmp_path / "disk"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 megabytes."""
    yield from by_fuse("small", tmp_path)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


NFC, NFD = (unicodedata.normalize(form, "Café.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("there", "asked"), [("IMG.jpg", "img.jpg"), (NFC, NFD), ("A/x.png", "a/X.PNG")])
def test_no_original_is_overwritten_by_another_spelling(folding: Path, there: str, asked: str) -> None:
    source = save(folding / there)
    before = source.read_bytes()
    result = run("restore", source, "-o", folding / asked, "--overwrite")
    assert result.exit_code == 2, result.output
    assert "is never overwritten" in words(result)
    assert source.read_bytes() == before


def test_no_two_inputs_fall_together_unsaid(folding: Path, tmp_path: Path) -> None:
    one, other = save(tmp_path / "cam1" / "IMG_1.JPG"), save(tmp_path / "cam2" / "img_1.jpg", 1)
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,output\ncam1/IMG_1.JPG,a/x.png\ncam2/img_1.jpg,A/X.png\n")
    for command in (
        ("batch", one, other, "-o", folding / "out"),
        ("batch", "--manifest", manifest, "-o", folding / "out"),
        ("restore", one, other, "-o", folding / "out"),
        ("degrade", one, other, "--recipe", "sr4", "-o", folding / "out"),
    ):
        result = run(*command)
        assert result.exit_code == 2, result.output
        assert "would both be written to" in words(result)
        assert "which this disk takes for" in words(result)
        assert names(folding) == []


def test_a_batch_goes_on_in_its_folder_by_another_spelling(folding: Path, model: Path) -> None:
    save(folding / "in" / "1.png")
    for out, said in (("in/Out", "1 restored, 0 skipped"), ("in/OUT", "0 restored, 1 skipped")):
        result = run("batch", folding / "in", "-o", folding / out, "--model", model, *QUICK)
        assert result.exit_code == 0, result.output
        assert said in words(result)
    assert names(folding / "in") == ["1.png", "Out/.batch.lock", "Out/1.png", "Out/batch.jsonl", "Out/report.json"]


def test_named_results_are_taken_and_a_folder_of_them_is_no_quiet_success(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("folder/a.restored.png"))
    result = run("restore", "folder", "--model", model, *QUICK)
    assert result.exit_code == 1
    assert "no picture but results; name those" in words(result)
    for name in ("./folder//a.restored.png", "folder/../folder/a.restored.png"):
        result = run("restore", name, "--model", model, "--overwrite", *QUICK)
        assert result.exit_code == 0, result.output
        assert "1 restored, 0 failed" in words(result)
    assert names(tmp_path) == ["folder/a.restored.png", "folder/a.restored.restored.png"]
    result = run("degrade", "folder", "--recipe", "sr4", "-o", "low")
    assert result.exit_code == 0, result.output
    assert names(Path("low/lq")) == ["a.restored.png", "a.restored.restored.png"]


def fill(disk: Path, but: int) -> Path:
    """A file that leaves so many bytes of room."""
    found = os.statvfs(disk)
    with (disk / "fill").open("wb") as stream:
        stream.write(bytes(found.f_bavail * found.f_frsize - but))
    return disk / "fill"


@pytest.mark.parametrize("room", [0, 70_000])
def test_a_full_disk_under_restore_and_batch(small: Path, tmp_path: Path, model: Path, room: int) -> None:
    source = save(tmp_path / "in" / "1.png", 0, 160)  # its result has some 76 kB
    commands = [("restore", source, "-o", f"{small}/out/"), ("batch", tmp_path / "in", "-o", small / "batch")]
    filling = fill(small, room)
    for command in commands:
        result = run(*command, "--model", model, *QUICK)
        assert result.exit_code == 1, result.output
        assert "the disk is full (0." in words(result)
        assert "Traceback" not in result.output
        assert not [name for name in names(small) if name.endswith((".png", ".tmp"))]
    filling.unlink()
    for command in commands:
        result = run(*command, "--model", model, *QUICK)
        assert result.exit_code == 0, result.output
        assert "1 restored" in words(result)
    assert {"out/1.png", "batch/1.png"} <= set(names(small))


@pytest.mark.filterwarnings("default:::supir", "error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_under_training(small: Path, tmp_path: Path) -> None:
    """The run goes on to its end without what finds no room; from the last whole state the same command continues."""
    run_folder, photographs = small / "run", save(tmp_path / "in" / "1.png", 0, 160).parent
    heldout = save(tmp_path / "heldout" / "2.png", 1, 160).parent
    settings = [f"--set={each}" for each in ("steps=4", "checkpoint_steps=1", "validation_steps=2", "batch=1")]
    command = ("train", "smoke/autoencoder", "--data", photographs, "--heldout", heldout, *settings, "--out")

    def states() -> list[str]:
        return sorted(path.name for path in run_folder.glob("checkpoints/*"))

    filling = fill(small, 1_400_000)  # for two states of 0.6 MB
    result = run(*command, run_folder)
    assert result.exit_code == 1, result.output
    assert "the run goes on, and tries again in 1 steps" in words(result)
    assert "step_00000004: cannot be written: the disk is full" in words(result)
    assert "Traceback" not in result.output
    assert states() in (["step_00000001"], ["step_00000001", "step_00000002"])
    filling.unlink()

    result = run(*command, run_folder)
    assert result.exit_code == 1, result.output
    assert "run/model: cannot be written: the disk is full" in words(result), "a disk this small holds no model"
    assert states() == ["step_00000003", "step_00000004"]
    shutil.copytree(run_folder, tmp_path / "roomy")
    result = run(*command, tmp_path / "roomy")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "roomy" / "model" / "model_index.json").exists()


def test_a_full_disk_under_a_data_set(small: Path, tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / "in" / f"{number}.png", number, 256)
    command = ("data", "build", tmp_path / "in", "--min-side", "64", "--min-sharpness", "0")
    filling = fill(small, 300_000)
    result = run(*command, "--out", small / "set")
    assert result.exit_code == 1, result.output
    assert "the disk is full (0." in words(result)
    assert not [name for name in names(small) if name.endswith((".tar", ".tmp"))]
    filling.unlink()
    assert run(*command, "--out", small / "set").exit_code == 0
    assert run(*command, "--out", tmp_path / "elsewhere").exit_code == 0
    [shard] = (small / "set").glob("*.tar")
    assert shard.read_bytes() == (tmp_path / "elsewhere" / shard.name).read_bytes()
