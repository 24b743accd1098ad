"""Picture files scored one by one, and the command over them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from skimage.data import astronaut
from typer.testing import CliRunner, Result

from evaluation.test_metrics import blurred, tensor
from supir.cli.main import app
from supir.errors import OptionError
from supir.evaluation.fidelity import psnr
from supir.evaluation.metrics import open_measures
from supir.evaluation.summary import as_csv, as_markdown, finite_means, score_pictures
from supir.image import Picture, read, write


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Restored pictures and originals: equal, blurred, of another size, without original, and broken."""
    found, originals = tmp_path / "found", tmp_path / "originals"
    photo = astronaut()[:200, :220]
    for name in ("same", "soft", "small"):
        write(Picture(pixels=tensor(photo)), originals / f"{name}.png")
    write(Picture(pixels=tensor(photo)), found / "same.png")
    write(Picture(pixels=blurred(photo, 2)), found / "soft.png")
    write(Picture(pixels=tensor(photo[:150])), found / "small.png")
    write(Picture(pixels=tensor(photo)), found / "extra.png")
    (found / "broken.png").write_bytes(b"nothing")
    return found, originals


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_what_can_be_scored_is_and_the_rest_says_why(folders: tuple[Path, Path]) -> None:
    found, originals = folders
    ready, _ = open_measures(["psnr", "ssim", "niqe"])
    paths = [found / f"{name}.png" for name in ("same", "soft", "small", "extra", "broken")]
    same, soft, small, extra, broken = score_pictures(paths, originals, ready)
    assert same.values["psnr"] == math.inf
    assert soft.values["psnr"] == psnr(read(paths[1]).rgb, read(originals / "soft.png").rgb)
    assert soft.values["niqe"] > same.values["niqe"]
    assert small.values.keys() == {"niqe"}
    assert "220x150 pixels and its original 220x200" in small.problems[0]
    assert "holds no original of this name" in extra.problems[0]
    assert not broken.values
    assert broken.problems
    assert finite_means([same.values, soft.values]).keys() == {"psnr", "ssim", "niqe"}
    assert finite_means([same.values, soft.values])["psnr"] == soft.values["psnr"]
    table = as_markdown([same, soft, small], list(ready), {"lpips": "not there", "dists": "not there"})
    assert "| PSNR ↑ |" in table
    assert "| 1 |" in table.splitlines()[2]
    assert table.splitlines()[-1] == "| LPIPS, DISTS | not here: not there | 0 |"
    assert "| PSNR ↑ | ∞ | 1 |" in as_markdown([same], ["psnr"], {})
    lines = as_csv([same, small], list(ready)).splitlines()
    assert lines[0] == "picture,psnr,ssim,niqe"
    assert lines[1].startswith("same.png,inf,1.000000,")
    assert lines[2].startswith("small.png,,,")


def test_without_originals_only_what_needs_none(folders: tuple[Path, Path]) -> None:
    ready, _ = open_measures(["psnr", "niqe"])
    [found] = score_pictures([folders[0] / "same.png"], None, ready)
    assert found.values.keys() == {"niqe"}
    write(Picture(pixels=torch.zeros(3, 8, 8)), folders[1] / "same.jpg")
    with pytest.raises(OptionError, match="have one name"):
        list(score_pictures([folders[0] / "same.png"], folders[1], ready))


def test_the_command(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found, originals = folders
    command = (found / "same.png", found / "soft.png", "--reference", originals, "--measures", "psnr, niqe,lpips")
    done = evaluate(*command, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("| measure | mean | pictures |")
    files = [(tmp_path / "out" / name).read_bytes() for name in ("scores.csv", "scores.json")]
    record = json.loads(files[1])
    assert record["pictures"][0]["values"]["psnr"] is None
    assert "lpips" in record["absent"] or "lpips" in record["measures"]
    again = evaluate(*command, "--out", tmp_path / "again")
    assert again.stdout == done.stdout
    assert files == [(tmp_path / "again" / name).read_bytes() for name in ("scores.csv", "scores.json")]
    told = evaluate(found, "--reference", originals, "--measures", "psnr", "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["pictures"] == 5
    assert "broken.png" in told.stderr


def test_results_beside_their_inputs_are_scored_against_the_inputs_originals(folders: tuple[Path, Path]) -> None:
    found, originals = folders
    for name in ("soft", "same"):
        (found / f"{name}.png").rename(found / f"{name}.restored.png")
    (found / "broken.png").unlink()
    (found / "small.png").unlink()
    (found / "extra.png").rename(found / "same.png")  # an input, which is a picture of the folder as well
    done = evaluate(found, "--reference", originals, "--measures", "psnr", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["pictures"] == 3
    soft = psnr(read(found / "soft.restored.png").rgb, read(originals / "soft.png").rgb)
    assert told["means"]["psnr"] == pytest.approx(soft), "of equal pictures it is infinite"


def test_wrong_usage_and_the_list() -> None:
    assert evaluate().exit_code == 2
    unknown = evaluate("x.png", "--measures", "psrn")
    assert unknown.exit_code == 2
    assert "unknown measure 'psrn'" in " ".join(unknown.stderr.replace("\u2502", " ").split())
    listed = evaluate("--list")
    assert listed.exit_code == 0
    assert "niqe_512" in listed.stdout
