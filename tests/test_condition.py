"""What is good already is known as such, and kept; what is not is restored."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data
from typer.testing import CliRunner

from supir.cli.main import app
from supir.image import condition_of, read
from supir.jobs.job import Job
from supir.jobs.restoring import KEPT, restore_job
from tiny import tiny_pipeline

CLEAN = ("astronaut", "chelsea", "coffee", "camera", "brick", "coins", "rocket")
TEXTURES = ("grass", "gravel")
"""Clean as well, without any flat place: little noise and compression cannot be told from what they show."""


def photo(name: str) -> Image.Image:
    return Image.fromarray(getattr(data, name)())


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def noisy(image: Image.Image, deviation: float) -> Image.Image:
    values = np.asarray(image).astype(float)
    noise = np.random.default_rng(0).normal(0, deviation, values.shape)
    return Image.fromarray((values + noise).clip(0, 255).astype(np.uint8))


DAMAGES = {
    "noise": lambda image: noisy(image, 5),
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(1.2)),
    "JPEG": lambda image: jpeg(image, 50),
    "enlarged": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "small, and enlarged": lambda image: image.reduce(2).resize(image.size, Image.Resampling.LANCZOS),
}


def test_clean_photographs_are_good_and_damaged_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for name in (*CLEAN, *TEXTURES):
        photo(name).save(path)
        found = condition_of(path)
        print(f"{name}: {found}")
        assert found.good
        for damage, make in DAMAGES.items():
            if name in CLEAN or damage not in ("noise", "JPEG"):
                make(photo(name)).save(path)
                assert not condition_of(path).good, (name, damage, str(condition_of(path)))


@pytest.mark.parametrize(("deviation", "size"), [(40, 0.0), (20, 0.7), (20, 1.2)])
def test_noise_and_grain_are_no_texture(deviation: float, size: float, tmp_path: Path) -> None:
    """Strong ones, fine and coarse: a picture full of them has no flat place either."""
    path = tmp_path / "a.png"
    for name in ("chelsea", "brick"):
        values = np.asarray(photo(name).convert("L")).astype(np.float32)
        grain = np.random.default_rng(0).normal(0, 1, values.shape).astype(np.float32)
        if size:
            grain = cv2.GaussianBlur(grain, (0, 0), size)
        grain *= deviation / grain.std()
        Image.fromarray((values + grain).clip(0, 255).astype(np.uint8)).save(path)
        assert not condition_of(path).good, (name, str(condition_of(path)))


@pytest.mark.slow
def test_the_bench_says_what_restoring_clean_photographs_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    import clean_photographs as bench

    bench.main(["--names", "coins", "--out", str(tmp_path)])
    once, twice = json.loads((tmp_path / "clean.json").read_text())
    assert (once["kept"], once["worse"][0]) == (True, "softer")
    assert (twice["kept"], twice["worse"]) == (False, [])
    assert twice["haar_psi"] > once["haar_psi"] > 0.9


def test_of_what_is_small_or_empty_nothing_is_said(tmp_path: Path) -> None:
    for size in ((200, 400), (400, 400)):
        Image.new("RGB", size, (90, 120, 200)).save(tmp_path / "a.png")
        assert condition_of(tmp_path / "a.png") is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_good_photo_is_kept(suffix: str, tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / f"b{suffix}"
    photo("chelsea").save(source)
    pipeline = tiny_pipeline()
    job = Job(source=source, target=target, options=pipeline.options(scale=1.0))
    with pytest.warns(UserWarning, match=r"a\.png: is good as it is .*--always restores it"):
        outcome = restore_job(pipeline, job)
    assert outcome.error is None
    assert outcome.words[KEPT].startswith("noise 0.")
    if suffix == ".png":
        assert target.read_bytes() == source.read_bytes()
    else:
        assert (read(target).pixels - read(source).pixels).abs().mean() < (0.02 if suffix == ".jpg" else 1e-6)


@pytest.mark.parametrize(
    "asked", [{"always": True}, {"scale": 2.0}, {"prompt": "a cat"}, {"region": "0,0,9,9; protect"}]
)
def test_what_somebody_asks_for_is_done(asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("chelsea").save(tmp_path / "a.png")
    pipeline, calls = tiny_pipeline(), []
    monkeypatch.setattr(type(pipeline), "restore_file", lambda self, *args, **more: calls.append(args) or {})
    options = pipeline.options(**{"scale": 1.0} | asked)
    job = Job(source=tmp_path / "a.png", target=tmp_path / "b.png", options=options)
    assert restore_job(pipeline, job).error is None
    assert len(calls) == 1


def test_the_command_says_so(tmp_path: Path) -> None:
    photo("chelsea").save(tmp_path / "a.png")
    result = CliRunner().invoke(app, ["restore", str(tmp_path / "a.png"), "--scale", "1", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "is good as it is" in result.output.replace("\n", " ")
    assert (tmp_path / "a.restored.png").read_bytes() == (tmp_path / "a.png").read_bytes()
