"""What comes of a photo before anything is sampled is made once for several versions of it, and changes none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from service.serving import QUICK, picture
from supir.jobs.job import Job
from supir.jobs.restoring import restore_job
from supir.options import RestoreOptions
from supir.pipeline import SupirPipeline
from supir.restoration import encoding
from supir.restoration.encoding import OF_SAMPLING, LastEncodings
from tiny import save_tiny_model


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> SupirPipeline:
    loaded = SupirPipeline.from_pretrained(save_tiny_model(tmp_path_factory.mktemp("weights") / "tiny"))
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture
def made(pipeline: SupirPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often the autoencoder was asked."""
    asked = Counter[str]()
    for name in ("encode", "encode_degraded", "decode"):
        original = getattr(pipeline.autoencoder, name)

        def counted(*given: Any, _name: str = name, _original: Any = original, **more: Any) -> Any:
            asked[_name] += 1
            return _original(*given, **more)

        monkeypatch.setattr(pipeline.autoencoder, name, counted)
    yield asked
    pipeline.last_encodings = None


def test_versions_of_a_photo_are_encoded_once(pipeline: SupirPipeline, made: Counter[str], tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    asked = [(1, {}), (1, {"seed": 3}), (1, {"preset": "fidelity"}), (2, {}), (1, {"seed": 3}), (1, {"scale": 2.0})]

    def all_of_them() -> list[Any]:
        found = []
        for number, more in asked:
            options = pipeline.options(**{**QUICK, **more})
            previews: list[Any] = []
            [one] = pipeline(tmp_path / f"{number}.png", options, on_preview=previews.append)
            found.append((one.picture.pixels, one.preview.pixels, previews[0].pixels))
        return found

    alone = all_of_them()
    each = dict(made)
    assert each["encode_degraded"] == len(asked)
    made.clear()
    pipeline.last_encodings = LastEncodings()
    kept = all_of_them()
    assert made == {"encode_degraded": 3, "encode": 3, "decode": each["decode"] - 3}  # three of six were there already
    for one, other in zip(alone, kept, strict=True):
        assert all(torch.equal(*both) for both in zip(one, other, strict=True))


def test_a_clean_preview_is_taken_over_and_what_is_kept_is_bounded(
    pipeline: SupirPipeline, made: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = pipeline.options(**QUICK)
    jobs = []
    for number in (1, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
        source, target = tmp_path / f"{number}.png", tmp_path / f"out-{number}.png"
        jobs.append(Job(source=source, target=target, options=options))
    pipeline.last_encodings = LastEncodings()
    for job in jobs:
        alone = replace(job, target=job.target.with_suffix(".preview.png"), preview_alone=True)
        assert restore_job(pipeline, alone).error is None
    assert made["encode_degraded"] == 3
    for job in jobs:
        assert restore_job(pipeline, job).error is None
    assert made["encode_degraded"] == 3, "their previews were made before"
    monkeypatch.setattr(encoding, "MOST_PIXELS", 2 * 64 * 128)  # of two pictures at working size
    for job in (jobs[0], jobs[2], jobs[0], jobs[1]):
        assert restore_job(pipeline, job, overwrite=True).error is None
    assert made["encode_degraded"] == 4, "the second was let go"


def test_nothing_is_kept_where_it_must_not_be() -> None:
    last, pixels = LastEncodings(), torch.zeros(1, 3, 8, 8)
    for wrong in ({"reference_quirks": True}, {"memory": 1.0}):
        assert last.once(pixels, RestoreOptions.silent(**wrong), torch.float32, None) is None
    assert set(RestoreOptions.fields()) >= OF_SAMPLING
    for heard in ("vae_tile", "detail", "min_size", "salvage"):
        assert heard not in OF_SAMPLING
