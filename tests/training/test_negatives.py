"""Negative-quality samples: the noise level of a strength, what is written, that training takes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from smoke_runs import make_materials, smoke

from supir.degradation.process import Degradation
from supir.prompts import NEGATIVE_PROMPT
from supir.sampling.sigmas import training_sigmas
from supir.training.denoising import Draw
from supir.training.negatives import Making, compare, img2img, make_negatives, start_sigma
from supir.training.pairs import degraded_by
from supir.training.photographs import LABELS, PictureFolder
from tiny import tiny_pipeline

LITTLE = {"num_steps": 2, "size": 64, "degradation": "light=1"}


def test_strength_is_a_part_of_the_training_levels() -> None:
    table = training_sigmas()
    assert start_sigma(0.5) == float(table[499])
    assert start_sigma(1.0) == float(table[-1])


def test_the_prior_alone_paints_under_the_negative_words(photographs: Path) -> None:
    pipeline = tiny_pipeline()
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.adaptor, "forward", None)  # would fail if it took part
        first, again = (img2img(pipeline, picture, Making(**LITTLE)) for _ in range(2))
        little = img2img(pipeline, picture, Making(**LITTLE, strength=0.01))
        other = img2img(pipeline, picture, Making(**LITTLE, guidance=1.0))
    assert first.shape == picture.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, little)


@pytest.mark.parametrize("way", ["img2img", "degraded"])
def test_a_folder_of_labelled_negatives(photographs: Path, tmp_path: Path, way: str) -> None:
    source, making = PictureFolder(photographs), Making(way=way, **LITTLE)  # type: ignore[arg-type]
    pipeline = tiny_pipeline() if way == "img2img" else None
    assert len(list(make_negatives(source, tmp_path, 2, making, pipeline))) == 2
    assert len(list(make_negatives(source, tmp_path, 3, making, pipeline))) == 1  # goes on
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
    making, source = Making(way="degraded", **LITTLE), PictureFolder(photographs)  # type: ignore[arg-type]
    whole = list(make_negatives(source, tmp_path / "whole", 3, making))
    list(make_negatives(source, tmp_path / "torn", 2, making))
    labels = tmp_path / "torn" / LABELS
    labels.write_bytes(labels.read_bytes()[:-7])
    assert list(make_negatives(source, tmp_path / "torn", 3, making)) == whole[1:]
    assert labels.read_bytes() == (tmp_path / "whole" / LABELS).read_bytes()
    assert PictureFolder(tmp_path / "torn").num_left_out == 0


def test_both_ways_are_compared(photographs: Path, tmp_path: Path) -> None:
    values = compare(tiny_pipeline(), PictureFolder(photographs), tmp_path / "compared.png", 2, Making(**LITTLE))
    assert (tmp_path / "compared.png").exists()
    assert set(values) == {f"{way}_{what}" for way in ("img2img", "degraded") for what in ("psnr", "detail")}
    assert values["degraded_psnr"] > 15


def test_labelled_pictures_are_negative_in_any_folder(photographs: Path, tmp_path: Path) -> None:
    making = Making(way="degraded", **LITTLE)  # type: ignore[arg-type]
    list(make_negatives(PictureFolder(photographs), tmp_path, 1, making))
    materials = make_materials(tmp_path, smoke("adaptor", negative_share=0.0))
    draw = Draw(materials.photographs, None, materials.options, materials.latent_shape)
    assert draw(np.random.default_rng(0)).prompt == NEGATIVE_PROMPT
