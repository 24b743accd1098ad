"""Scales and sizes that nobody has asked for."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from PIL import Image

from supir.errors import OptionError
from supir.image import scale_within
from supir.jobs.plan import BatchItem, plan_batch, plan_jobs, with_fitting_scale
from supir.options import RestoreOptions
from supir.service.limits import Limits
from supir.service.validation import SubmissionOptions, checked_picture


@pytest.mark.parametrize(
    ("width", "height", "scale", "suffix", "found"),
    [
        (225, 150, 2.0, ".jpg", 2.0),
        (4000, 4000, 2.0, ".png", 2.0),
        (6000, 4000, 2.0, ".jpg", 1.0),
        (9504, 6336, 2.0, ".tif", 1.0),
        (14204, 10652, 2.0, ".tif", 1.0),
        (2000, 2000, 8.0, ".png", 4.0),
        (9000, 500, 2.0, ".webp", 1.0),
        (9000, 500, 2.0, ".png", 2.0),
        (12000, 9000, 0.5, ".png", 0.5),
        (20000, 20000, 0.5, ".png", 0.5),
    ],
)
def test_the_largest_scale_that_fits(width: int, height: int, scale: float, suffix: str, found: float) -> None:
    assert scale_within(width, height, scale, suffix) == found


def test_jobs_of_large_photos_are_scaled_unless_somebody_said_how(tmp_path: Path) -> None:
    large, small = tmp_path / "large.jpg", tmp_path / "small.jpg"
    Image.new("L", (6000, 4000)).save(large)
    Image.new("L", (60, 40)).save(small)
    options = RestoreOptions(scale=2.0)
    jobs = with_fitting_scale(plan_jobs([large, small], None, options, compare=False))
    assert [job.options.scale for job in jobs] == [1.0, 2.0]
    items = [
        BatchItem(source=large, place=Path(name), options=options, scaled=scaled)
        for name, scaled in (("a.jpg", False), ("b.jpg", True))
    ]
    assert [job.options.scale for job in plan_batch(items, tmp_path / "out")] == [1.0, 2.0]


@pytest.mark.parametrize(("width", "height"), [(6000, 4000), (9504, 6336)])
def test_no_camera_photo_is_refused_by_the_service(tmp_path: Path, width: int, height: int) -> None:
    path, limits = tmp_path / "photo.jpg", Limits()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.new("L", (width, height)).save(path)
    options = RestoreOptions(scale=2.0)
    *found, allowed = checked_picture(path, "photo.jpg", options, limits, asked=SubmissionOptions())
    assert found == [".jpg", width, height]
    assert allowed == options.replace(scale=1.0)
    with pytest.raises(OptionError, match="lower scale"):
        checked_picture(path, "photo.jpg", options, limits, asked=SubmissionOptions(scaled=True))
