"""`supir degrade` from the outside: what is written, gone on with, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from supir.cli.main import app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two pictures in `in`."""
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("one.png", "two.png"):
        Image.fromarray(random.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def degrade(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["degrade", *map(str, arguments)])


def test_pairs_and_a_log_are_written_and_gone_on_with(folder: Path) -> None:
    done = degrade("in", "--recipe", "blur2_sr4", "-o", "out", "--side", 64)
    assert done.exit_code == 0, done.output
    assert Image.open(folder / "out" / "lq" / "one.png").size == (16, 16)
    assert Image.open(folder / "out" / "hq" / "one.png").size == (64, 64)
    lines = [json.loads(line) for line in (folder / "out" / "degradations.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["one", "two"]
    (folder / "out" / "lq" / "two.png").unlink()
    again = degrade("in", "--recipe", "blur2_sr4", "-o", "out", "--side", 64)
    assert "one.png (is there)" in again.stderr.replace("\n", "")
    assert "two.png (written)" in again.stderr.replace("\n", "")
    replayed = degrade("in", "--replay", "out/degradations.jsonl", "-o", "again", "--side", 64, "--quiet")
    assert (replayed.exit_code, replayed.output) == (0, "")
    for name in ("one", "two"):
        first, second = (folder / kind / "lq" / f"{name}.png" for kind in ("out", "again"))
        assert first.read_bytes() == second.read_bytes()


def test_what_cannot_be_read_is_named_and_the_others_done(folder: Path) -> None:
    (folder / "in" / "bad.jpg").write_bytes(b"nothing")
    done = degrade("in", "missing.png", "--recipe", "sr4", "-o", "out")
    assert done.exit_code == 1
    assert "missing.png" in done.stderr
    assert "bad.jpg" in done.stderr
    assert sorted(path.stem for path in (folder / "out" / "lq").iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("in", "-o", "out"), "either --recipe or --replay"),
        (("in", "--recipe", "sr4"), "--out"),
        (("in", "--recipe", "sr5", "-o", "out"), "unknown degradation recipe 'sr5'"),
        (("in", "--recipe", "sr4", "-o", "in"), "holds something"),
    ],
)
def test_wrong_usage(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    done = degrade(*arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("\u2502", " ").split())


def test_the_recipes_are_listed() -> None:
    done = degrade("--list")
    assert done.exit_code == 0
    assert "blur2_sr4_noise20_jpeg50" in done.stdout
