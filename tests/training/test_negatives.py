"""Negative-quality samples: the noise level of a strength, what is written, that training takes them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from smoke_runs import make_materials, smoke
from typer.testing import CliRunner

from supir.cli.main import app
from supir.degradation.process import Degradation
from supir.image import read
from supir.prompts import NEGATIVE_PROMPT
from supir.sampling.sigmas import training_sigmas
from supir.training.denoising import Draw
from supir.training.negatives import NegativeOptions, compare, img2img, make_negatives, start_sigma
from supir.training.pairs import degraded_by
from supir.training.photographs import LABELS, PictureFolder
from tiny import save_tiny_model, tiny_pipeline

LITTLE: dict[str, Any] = {"num_steps": 2, "size": 64, "degradation": "light=1"}


def test_strength_is_a_part_of_the_training_levels() -> None:
    table = training_sigmas()
    assert start_sigma(0.5) == float(table[499])
    assert start_sigma(1.0) == float(table[-1])


def test_the_prior_alone_paints_under_the_negative_words(photographs: Path) -> None:
    pipeline = tiny_pipeline()
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.adaptor, "forward", None)  # would fail if it took part
        first, again = (img2img(pipeline, picture, NegativeOptions(**LITTLE), [1]) for _ in range(2))
        little = img2img(pipeline, picture, NegativeOptions(**LITTLE, strength=0.01), [1])
        other = img2img(pipeline, picture, NegativeOptions(**LITTLE, guidance=1.0), [1])
    assert first.shape == picture.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, little)


@pytest.mark.parametrize("way", ["img2img", "degraded"])
def test_a_folder_of_labelled_negatives(photographs: Path, tmp_path: Path, way: str) -> None:
    source, pipeline = PictureFolder(photographs), tiny_pipeline() if way == "img2img" else None

    def make(number: int | None, out: Path = tmp_path, **more: Any) -> list[dict[str, Any]]:
        making = NegativeOptions(way=way, pictures=number, **LITTLE, **more)
        return list(make_negatives(source, out, making, pipeline))

    assert len(make(2)) == 2
    assert len(make(3)) == 1  # goes on
    assert make(None) == []  # one for every 200 photographs
    together = make(3, tmp_path / "together", batch=3)
    for label in together:
        alone, beside = (read(folder / label["file"]).rgb for folder in (tmp_path, tmp_path / "together"))
        assert (alone - beside).abs().max() < 2 / 127.5, "a picture depends on its company"
    labels = [json.loads(line) for line in (tmp_path / LABELS).read_text().splitlines()]
    assert [label["file"] for label in labels] == ["000000.png", "000001.png", "000002.png"]
    assert all(label["origin"]["way"] == way and label["origin"]["index"] == n for n, label in enumerate(labels))

    made = PictureFolder(tmp_path)
    assert made.draw(np.random.default_rng(0), 64).negative
    draw = Draw(source, made, smoke("adaptor", negative_share=0.5), (8, 8, 8))
    samples = [draw(np.random.default_rng((0, number))) for number in range(12)]
    poor = [sample for sample in samples if sample.prompt == NEGATIVE_PROMPT]
    assert 0 < len(poor) < len(samples)
    for sample in poor:  # a negative picture is itself the target, and degraded like any other
        assert not np.array_equal(sample.target, sample.degraded)
        assert np.array_equal(degraded_by(Degradation.from_json(sample.degradation), sample.target), sample.degraded)


def test_a_torn_label_is_made_again(photographs: Path, tmp_path: Path) -> None:
    """A kill within a label leaves a folder that is gone on with, and is then read whole."""
    source = PictureFolder(photographs)
    making = NegativeOptions(way="degraded", pictures=3, **LITTLE)
    whole = list(make_negatives(source, tmp_path / "whole", making))
    list(make_negatives(source, tmp_path / "torn", dataclasses.replace(making, pictures=2)))
    labels = tmp_path / "torn" / LABELS
    labels.write_bytes(labels.read_bytes()[:-7])
    assert list(make_negatives(source, tmp_path / "torn", making)) == whole[1:]
    assert labels.read_bytes() == (tmp_path / "whole" / LABELS).read_bytes()
    assert PictureFolder(tmp_path / "torn").num_left_out == 0


def test_both_ways_are_compared(photographs: Path, tmp_path: Path) -> None:
    values = compare(
        tiny_pipeline(), PictureFolder(photographs), tmp_path / "compared.png", NegativeOptions(pictures=2, **LITTLE)
    )
    assert (tmp_path / "compared.png").exists()
    assert set(values) == {f"{way}_{what}" for way in ("img2img", "degraded") for what in ("psnr", "detail")}
    assert values["degraded_psnr"] > 15


def test_labelled_pictures_are_negative_in_any_folder(photographs: Path, tmp_path: Path) -> None:
    list(make_negatives(PictureFolder(photographs), tmp_path, NegativeOptions(way="degraded", pictures=1, **LITTLE)))
    materials = make_materials(tmp_path, smoke("adaptor", negative_share=0.0))
    draw = Draw(materials.photographs, None, materials.options, materials.latent_shape)
    assert draw(np.random.default_rng(0)).prompt == NEGATIVE_PROMPT


def test_the_run_by_its_command(photographs: Path, tmp_path: Path) -> None:
    def called(*more: str) -> Any:
        command = ["train", "negatives", "--data", str(photographs), "--out", str(tmp_path / "out"), *more]
        return CliRunner().invoke(app, command)

    little = [word for name, value in LITTLE.items() for word in ("--set", f"{name}={value}")]
    done = called("--from", str(save_tiny_model(tmp_path / "model")), *little, "--set", "pictures=2")
    assert done.exit_code == 0, done.output
    assert "supir train RUN --negatives" in done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000.png", "000001.png", LABELS]
    for more, said in (
        (["--set", "strength=2"], "strength is 2.0; it must be a number from 0.001 to 1"),
        (["--set", "size=100"], "size is 100; it must be a multiple of 32"),
        (["--minutes", "3"], "--minutes: not of the run negatives"),
    ):
        refused = called(*more)
        assert refused.exit_code != 0
        assert said in " ".join(refused.output.split())


@pytest.mark.slow
def test_two_processes_make_what_one_makes(photographs: Path, tmp_path: Path) -> None:
    model = str(save_tiny_model(tmp_path / "model"))
    little = [word for name, value in LITTLE.items() for word in ("--set", f"{name}={value}")]
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1", "--num_processes"]
    for number in ("1", "2"):
        command = [sys.executable, *launch, number, "-m", "supir.cli", "train", "negatives", "--from", model]
        more = ["--data", str(photographs), "--out", str(tmp_path / number), "--set", "pictures=3", *little]
        subprocess.run([*command, *more], check=True, capture_output=True)
    one, two = ((tmp_path / number / LABELS).read_text().splitlines() for number in ("1", "2"))
    assert one == two
    for line in one:
        first, second = (read(tmp_path / number / json.loads(line)["file"]).rgb for number in ("1", "2"))
        assert torch.equal(first, second)
