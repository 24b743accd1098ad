"""A file is as sound as its picture: every pixel there, or refused by default and salvaged when asked."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from picture_files import LOSSLESS, encode, smooth
from supir.errors import ImageReadError
from supir.image import read, read_size, write_shown

GRAIN = np.random.default_rng(0).normal(0, 12, (120, 160, 3))
PHOTO = np.clip(smooth(120, 160) + GRAIN, 0, 255).astype(np.uint8)


def photo(kind: str, **options: Any) -> bytes:
    return encode(Image.fromarray(PHOTO), kind, **LOSSLESS.get(kind, {"quality": 95}), **options)


def garbled(data: bytes, seed: int, length: int = 40) -> bytes:
    """With other bytes in its middle."""
    chance = np.random.default_rng(seed)
    at = int(chance.integers(len(data) // 3, 2 * len(data) // 3))
    return data[:at] + chance.integers(0, 255, length, dtype=np.uint8).tobytes() + data[at + length :]


JPEG, PROGRESSIVE, PNG = photo("JPEG"), photo("JPEG", progressive=True), photo("PNG")
WHOLE = {
    "baseline JPEG without its end marker": JPEG[:-2],
    "half an end marker": JPEG[:-1],
    "progressive JPEG without its end marker": PROGRESSIVE[:-2],
    "PNG without IEND": PNG[:-12],
    "PNG with half of it": PNG[:-5],
    "PNG without its last checksum": PNG[:-14],
    "PNG with a damaged text": PNG[:33] + b"\0\0\0\4tEXta\0bc\1\2\3\4" + PNG[33:],
    "WebP with a cut chunk behind the pixels": photo("WebP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0")[:-4],
}
SOUND = {
    "padding before the end marker": JPEG[:-2] + b"\0" * 40 + b"\xff\xd9",
    "padding of a progressive one": PROGRESSIVE[:-2] + b"\0" * 40 + b"\xff\xd9",
    "bytes behind the end": JPEG + b"SEFT" * 50,
    "bytes between the segments": JPEG[:20] + b"\0\0\0" + JPEG[20:],
    "an Adobe marker of an unknown transform": JPEG[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\7" + JPEG[2:],
}
DAMAGED = {
    "half a JPEG": JPEG[: len(JPEG) // 2],
    "half a JPEG with an end marker": JPEG[: len(JPEG) // 2] + b"\xff\xd9",
    "a JPEG without its last rows": JPEG[:-60] + b"\xff\xd9",
    **{f"a garbled JPEG {seed}": garbled(JPEG, seed) for seed in range(6)},
    "a garbled progressive JPEG": garbled(PROGRESSIVE, 2),
    "a progressive JPEG cut between two scans": PROGRESSIVE[: PROGRESSIVE.rindex(b"\xff\xda")] + b"\xff\xd9",
    "half a PNG": PNG[: len(PNG) // 2],
    "a garbled PNG": garbled(PNG, 1),
    "half a lossless WebP": photo("WebP")[: len(photo("WebP")) // 2],
    "half a WebP": encode(Image.fromarray(PHOTO), "WebP")[:3000],
    "half a TIFF": photo("TIFF")[: len(photo("TIFF")) // 2],
    "a TIFF without its last bytes": photo("TIFF")[:-4],
    "a garbled LZW TIFF": garbled(photo("TIFF", compression="tiff_lzw"), 3),
    "a garbled JPEG in a TIFF": garbled(photo("TIFF", compression="jpeg"), 4, 400),
}


def put(folder: Path, data: bytes) -> Path:
    path = folder / "damaged.bin"
    path.write_bytes(data)
    return path


def difference(path: Path, *, salvage: bool = False) -> float:
    """Of the upper fifth, which is there in all of them, in grey levels."""
    picture = read(path, salvage=salvage)
    values = picture.pixels.add(1).mul(127.5).permute(1, 2, 0).numpy()
    return float(np.abs(values - PHOTO)[: len(PHOTO) // 5].mean())


@pytest.mark.parametrize("name", WHOLE)
def test_where_every_pixel_is_there_it_is_read_with_a_word(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, WHOLE[name])
    with pytest.warns(UserWarning, match=r"damaged\.bin: .*(every pixel is there|holds no pixels)"):
        found = read(path)
    sound = read(put(tmp_path, JPEG if "JPEG" in name or "marker" in name else PNG))
    if "progressive" not in name:
        assert torch.equal(found.pixels, sound.pixels)


@pytest.mark.parametrize("name", SOUND)
def test_what_is_nothing_to_the_pixels_needs_no_word(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(put(tmp_path, SOUND[name])).damage is None


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_refused_and_salvaged_when_asked(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, DAMAGED[name])
    with pytest.raises(ImageReadError, match=r"damaged or truncated: .*--salvage \(salvage=True\) restores what is"):
        read(path)
    assert read_size(path) == (160, 120)
    with pytest.warns(UserWarning, match=r"damaged: .*; what is there of it is taken"):
        found = read(path, salvage=True)
    assert (found.width, found.height) == (160, 120)
    assert found.damage is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert difference(path, salvage=True) < 12
    write_shown(path, tmp_path / "shown.png")
    assert Image.open(tmp_path / "shown.png").size == (160, 120)


def test_sound_files_of_many_sizes_are_not_taken_for_damaged(tmp_path: Path) -> None:
    for width, height in ((8, 8), (17, 33), (64, 200), (200, 192), (31, 16), (1, 1)):
        for options in ({}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 3}):
            for mode in ("RGB", "L"):
                part = Image.fromarray(PHOTO).resize((width, height)).convert(mode)
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    assert read(put(tmp_path, encode(part, "JPEG", quality=90, **options))).width == width
