"""`restore --audit` and `batch --audit`: results are audited as they are made, and limits decide what is returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
from typer.testing import CliRunner, Result

from supir.cli.main import app
from supir.image import Picture, read, read_record, verify, write
from supir.jobs.batch import LOG
from supir.jobs.model import Model
from supir.options import packages


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small and crisp, so that much has to be made up."""
    path = tmp_path_factory.mktemp("photo") / "cat.png"
    pixels = torch.from_numpy(skimage.data.chelsea()).permute(2, 0, 1).float() / 127.5 - 1
    write(Picture(pixels=torch.nn.functional.avg_pool2d(pixels[None], 4)[0, :, :48, 30:90].contiguous()), path)
    return path


def run(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in (*words, "--device", "cpu", "--no-letters")])


def test_a_result_is_audited_and_past_a_limit_it_is_the_preview(photo: Path, tmp_path: Path) -> None:
    plain, doubted = tmp_path / "plain.png", tmp_path / "doubted.png"
    asked = ["restore", photo, "--scale", "4", "--audit", "--max-invented", "0", "--json"]
    done = run(*asked, "-o", plain)
    found = json.loads((tmp_path / "plain.audit.json").read_text())
    assert read(tmp_path / "plain.audit.png").rgb.shape == read(plain).rgb.shape
    assert found["guarantee"] == "holds"
    assert found["invented"] > 0
    assert done.exit_code == 1
    told = json.loads(done.stdout[done.stdout.index("{") :].splitlines()[0])["restored"][0]["audit"]
    assert told["past_limits"] == found["past_limits"] != []
    again = run(*asked, "-o", doubted, "--on-doubt", "preview")
    assert again.exit_code == 1
    assert read_record(doubted)["on_doubt"] == "preview"
    assert verify(doubted).pixels == "unchanged"
    assert not torch.equal(read(doubted).rgb, read(plain).rgb)


def test_options_of_an_audit_without_one_are_refused(photo: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["restore", str(photo), "-o", str(tmp_path / "a.png"), "--max-invented", "0.5"])
    assert done.exit_code != 0
    assert "add --audit" in done.output


def test_what_is_too_large_or_small_to_be_audited_is_told_before_the_work(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    write(Picture(pixels=torch.zeros(3, 2000, 2000)), large)
    done = run("restore", large, "-o", tmp_path / "huge.png", "--scale", "2", "--audit")
    assert done.exit_code == 1
    assert "up to 12 megapixels can be audited" in done.output
    write(Picture(pixels=torch.zeros(3, 12, 40)), large)
    done = run("restore", large, "-o", tmp_path / "huge.png", "--scale", "2", "--audit")
    assert done.exit_code == 1
    assert "of 40 x 12; an audit needs 16 a side" in done.output
    assert not (tmp_path / "huge.png").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--level", "0.01", "--no-letters"], "photographs can promise"),
        (["--max-changed-words", "0", "--no-letters"], "letters is False, so that no word is read"),
        (["--max-changed-words", "0"], "pip install 'supir[audit]'"),
    ],
    ids=["level", "no-letters", "no-reader"],
)
@pytest.mark.parametrize("command", ["restore", "batch"])
def test_what_cannot_be_promised_or_counted_is_told_before_the_work(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, asked: list[str], said: str
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    monkeypatch.setattr(Model, "open", lambda *given: pytest.fail("the weights were opened"))
    out = tmp_path / "out.png"
    done = CliRunner().invoke(app, [command, str(photo), "-o", str(out), "--audit", *asked, "--device", "cpu"])
    assert done.exit_code != 0
    assert said in " ".join(done.output.replace("│", " ").split())
    assert not out.exists() or not list(out.glob("*.png"))


@pytest.mark.slow
def test_a_batch_notes_what_audits_found_and_makes_nothing_twice(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run("batch", photo, "-o", out, "--scale", "2", "--audit")
    assert first.exit_code == 0, first.output
    [line] = [json.loads(each) for each in (out / LOG).read_text().splitlines()]
    assert line["audit"]["guarantee"] == "holds"
    assert (out / "cat.audit.json").exists()
    assert "1 skipped" in run("batch", photo, "-o", out, "--scale", "2", "--audit").output
    assert "1 restored" in run("batch", photo, "-o", out, "--scale", "2", "--audit", "--max-invented", "1").output
