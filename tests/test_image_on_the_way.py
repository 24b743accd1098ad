"""Transparency and damage on the whole way: pipeline, large pictures, sheets, batches, the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from picture_files import cut_out, encode
from supir.cli.main import app
from supir.image import check_file, read, read_record, side_by_side, write, write_shown
from supir.jobs.job import Job, settings_sha256
from supir.jobs.restoring import restore_job
from supir.restoration import streaming
from supir.restoration.restorer import Restorer
from tiny import tiny_pipeline

QUICK: dict[str, Any] = {"min_size": 64, "num_steps": 1, "tile": 64, "vae_tile": 64, "scale": 1.0}


def half(kind: str) -> bytes:
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)), kind)
    return data[: len(data) // 2]


def put(folder: Path, data: bytes) -> Path:
    path = folder / "damaged.bin"
    path.write_bytes(data)
    return path


def levels_shown(path: Path) -> np.ndarray:
    """Of what is mostly shown in a file."""
    with Image.open(path) as image:
        values = np.array(image.convert("RGBA")).astype(int)
    return values[values[..., 3] > 40][:, :3]


def test_nothing_hidden_is_seen_in_results_sheets_and_thumbnails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "cut.png"
    Image.fromarray(cut_out()).save(source)
    pipeline, found, run = tiny_pipeline(), [], Restorer.encode_degraded
    options = {"min_size": 64, "num_steps": 1, "tile": 128, "vae_tile": 128, "scale": 2.0, "color_fix": "none"}
    for large in (10**9, 1000):
        monkeypatch.setattr(streaming, "LARGE", large)
        given: list[torch.Tensor] = []

        def encode_degraded(self: Restorer, pixels: Any, given: list[torch.Tensor] = given) -> torch.Tensor:
            given.append(pixels[..., 0:192, 0:192])
            return run(self, pixels)

        monkeypatch.setattr(Restorer, "encode_degraded", encode_degraded)
        pipeline.restore_file(source, tmp_path / f"{large}.png", **options)
        found.append(given[0])
    for pixels in found:
        assert (pixels.add(1).mul(127.5) - 250).abs().max() < 3
    before = read(source)
    sheet = side_by_side(before, before.with_pixels(torch.full((3, 192, 192), 250 / 127.5 - 1)))
    assert sheet.pixels.add(1).mul(127.5).min() > 245, "white and 250 alone"
    write_shown(source, tmp_path / "small.jpg", 40)
    assert np.array(Image.open(tmp_path / "small.jpg")).min() > 240
    for suffix in (".png", ".webp", ".tif"):
        write(before, tmp_path / f"again{suffix}")
        assert levels_shown(tmp_path / f"again{suffix}").min() > 240
    with pytest.warns(UserWarning, match="laid on white"):
        write(before, tmp_path / "again.jpg")
    assert np.array(Image.open(tmp_path / "again.jpg")).min() > 235


def test_the_option_reaches_every_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from supir.restoration import streaming

    pipeline, path = tiny_pipeline(), put(tmp_path, half("JPEG"))
    for large in (10**9, 1000):
        monkeypatch.setattr(streaming, "LARGE", large)
        options = pipeline.options(**QUICK)
        job = Job(
            source=path, target=tmp_path / f"{large}.png", compare=tmp_path / f"{large}.sheet.png", options=options
        )
        assert "--salvage" in (restore_job(pipeline, job).error or "")
        with pytest.warns(UserWarning, match="what is there of it is taken"):
            done = restore_job(pipeline, Job(**{**vars(job), "options": options.replace(salvage=True)}))
        assert done.error is None
        assert "what is there of it is taken" in read_record(tmp_path / f"{large}.png")["damage"]


def test_batches_are_not_made_anew_for_the_option() -> None:
    options = tiny_pipeline().options(**QUICK)
    assert settings_sha256(options, {}) == settings_sha256(options.replace(salvage=True), {})


def test_the_command_names_its_own_option(tmp_path: Path) -> None:
    path = put(tmp_path, half("PNG"))
    done = CliRunner().invoke(
        app, ["restore", str(path), "-o", str(tmp_path / "a.png"), "--steps", "1", "--scale", "1"]
    )
    assert done.exit_code == 1
    assert "--salvage" in done.output
    assert check_file(path)[0] == "PNG"
