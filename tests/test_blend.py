"""Result and clean preview mixed, everywhere or by a mask, in memory and in strips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from picture_files import smooth
from supir.errors import OptionError
from supir.image import read
from supir.jobs import Model
from supir.jobs.job import settings_sha256
from supir.pipeline import SupirPipeline
from supir.restoration import streaming
from supir.service.validation import chosen_options
from tiny import tiny_pipeline

QUICK: dict[str, Any] = {"min_size": 64, "num_steps": 1, "scale": 1.0, "color_fix": "none"}


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    return tiny_pipeline()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(smooth(64, 112)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def mask(path: Path, width: int = 14, height: int = 8) -> Path:
    """White on its left half."""
    values = np.zeros((height, width), np.uint8)
    values[:, : width // 2] = 255
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("large", [10**9, 1000], ids=["in memory", "in strips"])
def test_a_share_of_the_preview_everywhere_or_by_a_mask(
    large: int, pipeline: SupirPipeline, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LARGE", large)

    def made(**options: Any) -> Tensor:
        pipeline.restore_file(photo, tmp_path / "made.png", preview=tmp_path / "preview.png", **QUICK, **options)
        return read(tmp_path / "made.png").pixels

    plain, preview = made(), read(tmp_path / "preview.png").pixels
    assert (plain - preview).abs().max() > 0.1
    step = 2.1 / 255
    assert (made(blend=1.0) - preview).abs().max() < step
    assert (made(blend=0.25) - (plain * 0.75 + preview * 0.25)).abs().max() < step
    by_mask = made(blend=1.0, blend_mask=str(mask(tmp_path / "mask.png")))
    assert (by_mask[..., :48] - preview[..., :48]).abs().max() < step
    assert (by_mask[..., 64:] - plain[..., 64:]).abs().max() < step


def test_a_mask_that_cannot_be_one_is_refused(pipeline: SupirPipeline, photo: Path, tmp_path: Path) -> None:
    for name, said in (
        (str(mask(tmp_path / "tall.png", 8, 14)), "8 x 14 pixels and the photo 112 x 64"),
        ("none.png", "none.png"),
    ):
        with pytest.raises(OptionError, match=f"blend_mask.*{said}"):
            pipeline(photo, **QUICK, blend=0.5, blend_mask=name)
    with pytest.raises(OptionError, match="a service opens none of its own"):
        chosen_options({"blend_mask": "/etc/passwd", "blend": "1"}, Model())


def test_a_batch_knows_a_mask_by_what_it_holds(pipeline: SupirPipeline, tmp_path: Path) -> None:
    one, other = mask(tmp_path / "a.png"), mask(tmp_path / "b.png")
    hashes = [settings_sha256(pipeline.options(blend=0.5, blend_mask=str(each)), {}) for each in (one, other)]
    assert hashes[0] == hashes[1]
    mask(other, 28, 16)
    assert settings_sha256(pipeline.options(blend=0.5, blend_mask=str(other)), {}) != hashes[0]
