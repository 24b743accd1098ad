"""`supir data` from the outside: exit codes, what is said, what is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from data.photographs import album, photo, save
from supir.cli.main import app
from supir.data.photos import Photos

SMALL = ("--min-side", "64")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def said(result: Result) -> str:
    return " ".join(result.stderr.replace("│", " ").split())


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from supir.cli.main import app; app(['data', 'build', '-h'], standalone_mode=False)"
    code += "; print('modules:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split("modules:")[1].split())
    assert "supir.cli.data" in modules
    assert not modules & {"torch", "numpy", "pyvips", "PIL", "ray", "webdataset", "transformers"}


def test_build_and_stats(tmp_path: Path) -> None:
    folder, out = album(tmp_path / "in"), tmp_path / "out"
    (folder / "bad.jpg").write_text("no picture")
    result = run("build", folder, "-o", out, *SMALL, "--licence", "CC-BY-4.0", "--photos-per-shard", 5)
    assert result.exit_code == 0, result.output
    assert "12 of 13 pictures kept as 12 samples in 3 shards" in said(result)
    assert "rejected: 1 unreadable" in said(result)
    assert len(Photos(out)) == 12
    assert json.loads((out / "build.json").read_text())["licences"] == {"CC-BY-4.0": 11, "CC0-1.0": 1}
    before = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert run("stats", out).exit_code == 0
    assert (out / "report.html").read_bytes() == before
    assert run("stats", folder).exit_code == 2


def test_off_switches_a_rule_off(tmp_path: Path) -> None:
    save(tmp_path / "in" / "x.png", photo(0, 20, 20))
    result = run("build", tmp_path / "in", "-o", tmp_path / "a")
    assert result.exit_code == 1
    assert "no picture was kept" in said(result)
    assert run("build", tmp_path / "in", "-o", tmp_path / "b", "--min-side", "off", "-q").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere", "-o", "out"), 1, "nowhere: does not exist"),
        (("in", "-o", "in/b/photo 00.png"), 2, "is a file"),
        (("in", "-o", "in"), 2, "no build made"),
        (
            ("in", "-o", "out", "--min-side", "x"),
            2,
            "min_side is 'x'; it must be a whole number from 1",
        ),
        (
            ("in", "-o", "out", "--max-flat-share", "7"),
            2,
            "max_flat_share is 7.0; it must be a number from 0 to 1",
        ),
        (("in", "-o", "out", "--tile", "3"), 2, "tile is 3"),
        (("in", "-o", "out", "--captions", "nowhere"), 2, "no model folder"),
        (("in", "-o", "/proc/out"), 1, "error: "),
        (("in", "-o", "made", "--tile", "64"), 2, "other options (tile None, now 64)"),
    ],
)
def test_what_goes_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    album(Path("in"), 2)
    if "made" in arguments:
        assert run("build", "in", "-o", "made", *SMALL).exit_code == 0
    result = run("build", *arguments, *(() if "--min-side" in arguments else SMALL))
    assert result.exit_code == code, result.output
    assert words in said(result)
    assert not Path("out").exists()


def test_workers_are_processes(tmp_path: Path) -> None:
    folder = album(tmp_path / "in")
    assert run("build", folder, "-o", tmp_path / "a", *SMALL).exit_code == 0
    done = run("build", folder, "-o", tmp_path / "b", *SMALL, "--workers", 2)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a" / "shard-000000.tar").read_bytes() == (tmp_path / "b" / "shard-000000.tar").read_bytes()
