from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from picture_files import (
    SUFFIXES,
    encode,
    grey_profile,
    picture,
    read_bytes,
    smooth,
    stored,
)
from supir.errors import ImageWriteError, OptionError
from supir.image import Picture, read, read_record, write


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_files_hold_the_exact_integers(
    tmp_path: Path, suffix: str, bits: int, alpha: bool, channels: int
) -> None:
    source, values = picture(channels, bits, alpha)
    path = tmp_path / f"a{suffix}"
    write(source, path)
    assert stored(path).dtype == values.dtype
    assert np.array_equal(stored(path), values)
    again = read(path)
    assert (again.grey, again.bits) == (channels == 1, bits)
    assert torch.allclose(again.pixels, source.pixels, atol=1e-6)


def test_values_are_rounded_and_clamped_not_cut(tmp_path: Path) -> None:
    levels = torch.tensor([-2.0, -1.0, 99.4 / 127.5 - 1, 99.6 / 127.5 - 1, 1.0, 3.0])
    write(Picture(pixels=levels.expand(3, 1, 6).contiguous()), tmp_path / "a.png")
    assert stored(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 99, 100, 255, 255]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_files_are_close_and_quality_counts(tmp_path: Path, suffix: str) -> None:
    source = read_bytes(tmp_path, encode(Image.fromarray(smooth(200, 300)), "PNG"))
    path = tmp_path / f"b{suffix}"
    write(source, path, quality=95)
    large = path.stat().st_size
    assert np.abs(stored(path)[..., :3].astype(int) - smooth(200, 300)).mean() < 2
    write(source, path, quality=20)
    assert path.stat().st_size < large / 2


def test_bits(tmp_path: Path) -> None:
    source, values = picture(bits=16)
    write(source, tmp_path / "a.png", bits=8)
    assert np.array_equal(stored(tmp_path / "a.png"), np.rint(values / 257).astype(np.uint8))
    write(picture()[0], tmp_path / "b.tif", bits=16)
    assert np.array_equal(stored(tmp_path / "b.tif"), picture()[1].astype(np.uint16) * 257)
    for suffix in (".jpg", ".webp"):
        write(source, tmp_path / f"c{suffix}", record={"seed": "1"})
        record = read_record(tmp_path / f"c{suffix}")
        assert (record.pop("seed"), record.pop("bits"), *record) == ("1", "8 (the input has 16)", "pixels_sha256")
        with pytest.raises(ImageWriteError, match=r"holds 8 bits per channel; choose \.png or \.tiff"):
            write(source, tmp_path / f"d{suffix}", bits=16)
    with pytest.raises(OptionError, match="bits is 12; allowed are 8 and 16"):
        write(source, tmp_path / "e.png", bits=12)
    with pytest.raises(OptionError, match="quality is 0; allowed is 1 to 100"):
        write(source, tmp_path / "e.png", quality=0)


def test_alpha_in_jpeg_is_laid_on_white(tmp_path: Path) -> None:
    black = Picture(pixels=torch.full((3, 16, 16), -1.0), alpha=torch.zeros(1, 16, 16))
    with pytest.warns(UserWarning, match="JPEG has no transparency; laid on white"):
        write(black, tmp_path / "a.jpg")
    assert stored(tmp_path / "a.jpg").min() > 250
    write(replace(black, alpha=torch.ones(1, 16, 16)), tmp_path / "b.jpg")
    assert stored(tmp_path / "b.jpg").max() < 5


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_grey_stays_grey_through_a_network(tmp_path: Path, suffix: str) -> None:
    source = read_bytes(tmp_path, encode(Image.fromarray(smooth()[..., 0]), "PNG", icc_profile=grey_profile()))
    restored = source.with_pixels(torch.nn.functional.interpolate(source.rgb[None], scale_factor=2)[0] * 1.5)
    assert restored.grey
    assert restored.pixels.abs().max() <= 1
    path = tmp_path / f"b{suffix}"
    write(restored, path)
    again = read(path)
    assert (again.grey, again.icc) == ((False, None) if suffix == ".webp" else (True, grey_profile()))
    assert (again.pixels[0] - again.pixels[-1]).abs().max() < 0.05
    assert (again.pixels.mean() - restored.pixels.mean()).abs() < 0.02


def test_alpha_follows_the_new_size() -> None:
    source, _ = picture(alpha=True)
    restored = source.with_pixels(torch.zeros(3, 90, 120))
    assert restored.alpha is not None
    assert restored.alpha.shape == (1, 90, 120)
    assert restored.alpha.min() >= 0
    assert restored.alpha.max() <= 1
    assert (restored.alpha.mean() - source.alpha.mean()).abs() < 0.01  # type: ignore[union-attr]


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    source = picture()[0]
    (tmp_path / "old.png").write_bytes(b"old")
    nan = replace(source, pixels=source.pixels.clone().fill_(float("nan")))
    for name in ("old.png", "a.jpg", "a.tif", "a.webp"):
        with pytest.raises(ImageWriteError, match="NaN or infinity"):
            write(nan, tmp_path / name)
    wide = Picture(pixels=torch.zeros(1, 1, 20_000))
    with pytest.raises(
        ImageWriteError, match=r"20000 x 1 pixels; WebP holds 16383 a side at most: choose \.png or \.tiff"
    ):
        write(wide, tmp_path / "a.webp")
    with pytest.raises(
        ImageWriteError, match=r"suffix '\.gif'; allowed are \.jpg, \.jpeg, \.png, \.webp, \.tif, \.tiff"
    ):
        write(source, tmp_path / "a.gif")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageWriteError, match="is a folder"):
        write(source, tmp_path / "folder.png")
    with pytest.raises(ImageWriteError, match=r"cannot be written: is a file, so nothing can be written below it"):
        write(source, tmp_path / "old.png" / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource")
    import signal

    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # every write beyond 2000 bytes of a file fails
    try:
        with pytest.raises(ImageWriteError, match=rf"a{suffix}: cannot be written"):
            write(Picture(pixels=torch.rand(3, 100, 100) * 2 - 1), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_folders_are_made_and_modes_are_those_of_new_files(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.png"
    write(picture()[0], path)
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [file.name for file in path.parent.iterdir()] == ["c.png"]


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ImageWriteError, match=os.strerror(errno.EACCES)):
        write(picture()[0], tmp_path / "a.png")


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_who_reads_the_old_file_meanwhile_keeps_it_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write(picture()[0], path)
        assert reader.read() == b"old"
    assert read(path).width == 40
