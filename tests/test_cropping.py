"""The clean preview of a part of a photo is that part of the whole's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from supir import image
from supir.errors import OptionError
from supir.jobs.model import Model
from supir.options import RestoreOptions, restore_options
from supir.options.crop import Crop
from supir.pipeline import PREVIEW
from supir.restoration.cropping import cropped_preview

PHOTO = Path(__file__).parents[1] / "examples" / "photo.jpg"
CROP = Crop(40, 24, 64, 56)


def sharpened(pixels: Tensor) -> Tensor:
    """What a network with a short sight might do, which does not end at the edge of what it is given."""
    padded = F.pad(pixels, (2, 2, 2, 2), mode="replicate")
    return pixels + (pixels - F.avg_pool2d(padded, 5, 1))


def photo(kind: str, **more: Any) -> bytes:
    coarse = np.random.default_rng(3).integers(0, 255, (9, 12, len(kind)), dtype=np.uint8)
    small = Image.fromarray(coarse[..., 0] if kind == "L" else coarse, kind)
    stream = io.BytesIO()
    found = small.resize((160, 120), Image.Resampling.BICUBIC)
    if kind == "RGB" and more.pop("toned", False):
        grey = np.asarray(found.convert("L"), np.float64)
        found = Image.fromarray(np.stack([grey * 0.9 + 20, grey * 0.85 + 10, grey * 0.8], -1).astype(np.uint8))
    found.save(stream, "TIFF", **more)
    return stream.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def whole(path: Path, options: RestoreOptions) -> image.Picture:
    fitted = image.fitted(image.read(path), options, 64)
    return fitted.finish(sharpened(fitted.pixels[None])[0])


@pytest.mark.parametrize(
    ("kind", "more", "options"),
    [
        ("RGB", {}, {"scale": 1.0, "min_size": 64}),
        ("RGB", {}, {"scale": 2.0, "min_size": 64}),
        ("RGB", {}, {"scale": 1.37, "min_size": 64}),
        ("RGB", {}, {"scale": 1.0, "min_size": 200}),
        ("RGB", {"exif": turned()}, {"scale": 2.0, "min_size": 64}),
        ("RGB", {"toned": True}, {"scale": 2.0, "min_size": 64}),
        ("RGBA", {}, {"scale": 1.37, "min_size": 200}),
        ("L", {}, {"scale": 1.37, "min_size": 64}),
    ],
    ids=["as it is", "larger", "between pixels", "worked on larger", "turned", "in one tone", "transparent", "grey"],
)
def test_a_part_is_at_its_place_in_the_whole(
    tmp_path: Path, kind: str, more: dict[str, Any], options: dict[str, Any]
) -> None:
    chosen, path = restore_options(**options), tmp_path / "photo.tif"
    path.write_bytes(photo(kind, **more))
    expected, shown = whole(path, chosen), []

    def preview(pixels: Tensor, enlargement: float, whole: tuple[int, int]) -> Tensor:
        assert enlargement > 0.99 * chosen.scale
        assert whole[0] >= pixels.shape[-2]
        assert whole[1] >= pixels.shape[-1]
        shown.append(pixels.shape[-2:].numel())
        return sharpened(pixels)

    with image.open_large(path, tmp_path) as picture:
        assert kind != "RGB" or (picture.toning is not None) == ("toned" in more)
        height, width = picture.height, picture.width
        made = cropped_preview(picture, CROP, chosen, 64, preview)
    down, across = expected.height / height, expected.width / width
    top, bottom = (int(row * down + 0.5) for row in (CROP.top, CROP.top + CROP.height))
    left, right = (int(column * across + 0.5) for column in (CROP.left, CROP.left + CROP.width))
    assert (made.height, made.width) == (bottom - top, right - left)
    torch.testing.assert_close(made.pixels, expected.pixels[:, top:bottom, left:right], atol=2e-3, rtol=0)
    assert (made.alpha is None) == (kind != "RGBA")
    if made.alpha is not None:
        assert expected.alpha is not None
        torch.testing.assert_close(made.alpha, expected.alpha[:, top:bottom, left:right], atol=2e-3, rtol=0)
    if chosen.scale == 2:
        assert shown[0] < 256 * 320, "no more is made than the part and its surroundings"


def test_a_part_is_written_as_it_is_read() -> None:
    assert Crop.parse(" 1, 2,3,4 ") == Crop(1, 2, 3, 4) == Crop.parse(str(Crop(1, 2, 3, 4)))
    for wrong in (
        "",
        "1,2,3",
        "1,2,3,4,5",
        "-1,2,3,4",
        "1.5,2,3,4",
        "a,b,c,d",
        "1,2,0,4",
        "1,2,3,0",
        "9" * 10 + ",0,1,1",
    ):
        with pytest.raises(OptionError, match="crop is "):
            Crop.parse(wrong)
    Crop(1, 2, 3, 4).check_within(4, 6)
    for width, height in ((3, 6), (4, 5)):
        with pytest.raises(OptionError, match=f"which has {width} x {height} pixels"):
            Crop(1, 2, 3, 4).check_within(width, height)


@pytest.mark.slow
def test_a_part_of_the_bundled_models_preview(tmp_path: Path) -> None:
    """Its networks see 208 pixels far, but hardly beyond the margin: within 12 levels of 255, 1 on average."""
    pipeline = Model().open_previewer()
    options = pipeline.options(scale=2.0, min_size=64)
    image.write(pipeline.preview(PHOTO, options), tmp_path / "whole.png")
    pipeline.preview_crop(PHOTO, tmp_path / "part.png", CROP, options)
    whole, part = (np.asarray(Image.open(tmp_path / name), np.int16) for name in ("whole.png", "part.png"))
    assert part.shape == (2 * CROP.height, 2 * CROP.width, 3)
    place = whole[2 * CROP.top :, 2 * CROP.left :][: 2 * CROP.height, : 2 * CROP.width]
    apart = np.abs(place - part)
    assert (apart.max() <= 12, apart.mean() <= 1) == (True, True), (apart.max(), apart.mean())
    assert np.abs(np.roll(place, 2, 1) - part).max() > 20  # elsewhere it is another picture
    record = image.read_record(tmp_path / "part.png")
    assert (record["made"], record["crop"]) == (PREVIEW, str(CROP))
