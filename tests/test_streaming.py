"""Large pictures go from file to file: the same result as in memory, with never the whole in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from picture_files import SRGB, noise, smooth
from supir.errors import ImageWriteError
from supir.image import read, read_record, resize
from supir.image.sizes import Resampling, mirrored_indices, pad_to_multiple
from supir.pipeline import SupirPipeline
from supir.restoration import color, streaming
from supir.tensors.arrays import MemmapArray
from supir.tensors.tiling import blended, tiled
from tiny import tiny_pipeline

ROOT = Path(__file__).parents[1]
QUICK: dict[str, Any] = {"min_size": 64, "num_steps": 1, "tile": 64, "vae_tile": 64, "seed": 3}


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    return tiny_pipeline()


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "LARGE", 1000)


def transparent(path: Path) -> Path:
    """Different in each corner, its alpha too."""
    Image.fromarray(np.dstack([smooth(50, 90), smooth(50, 90)[..., 0]])).save(path, icc_profile=SRGB)
    return path


def deep_grey(path: Path) -> Path:
    """16 bits, one channel."""
    pyvips.Image.new_from_array(noise(40, 70, bits=16)).copy(interpretation="grey16").write_to_file(str(path))
    return path


def turned(path: Path) -> Path:
    """Lies on its side, as its EXIF says."""
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(smooth(50, 90)).save(path, quality=95, exif=exif)
    return path


@pytest.mark.parametrize(
    ("make", "name", "options"),
    [
        (transparent, "a.png", {"scale": 2.0}),
        (transparent, "a.png", {"scale": 1.7, "color_fix": "none"}),
        (deep_grey, "b.tif", {"scale": 2.3, "color_fix": "adain"}),
        (turned, "c.jpg", {"scale": 2.0}),
        (turned, "c.jpg", {"scale": 2.0, "color_fix": "lab", "color_strength": 0.6, "blend": 0.3}),
    ],
)
def test_the_same_result_as_in_memory(
    make: Any, name: str, options: dict[str, Any], pipeline: SupirPipeline, tmp_path: Path, monkeypatch: Any
) -> None:
    source = make(tmp_path / name)
    suffix = source.suffix.replace("jpg", "png")
    found = []
    for large in (10**9, 1000):
        monkeypatch.setattr(streaming, "LARGE", large)
        target, preview = (tmp_path / f"{kind}{large}{suffix}" for kind in ("result", "preview"))
        record = pipeline.restore_file(source, target, preview=preview, record={"who": "me"}, **QUICK | options)
        assert read_record(target).items() >= record.items()
        assert record["who"] == "me"
        found.append((read(target), read(preview), record))
    (result, preview, record), (streamed, streamed_preview, its_record) = found
    assert record == its_record
    for one, other in ((result, streamed), (preview, streamed_preview)):
        assert one.pixels.shape == other.pixels.shape
        assert (one.bits, one.icc, one.exif) == (other.bits, other.icc, other.exif)
        assert (one.pixels - other.pixels).abs().max() <= 2.1 / (2**one.bits - 1) * (1 if one.bits == 8 else 8)
        if one.alpha is not None:
            assert other.alpha is not None
            assert (one.alpha - other.alpha).abs().max() <= 1.1 / 255
    assert (result.pixels - preview.pixels).abs().max() > 0.01  # it is no picture of nothing


class Largest(TorchDispatchMode):
    """Remembers how many values the largest tensor has that was made."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        made = [each.numel() for each in tree_leaves(found) if isinstance(each, torch.Tensor)]
        self.values = max([self.values, *made])
        return found


@pytest.mark.slow
@pytest.mark.usefixtures("everything_is_large")
def test_no_tensor_is_as_large_as_the_picture(pipeline: SupirPipeline, tmp_path: Path) -> None:
    height, width = 1024, 128
    Image.fromarray(smooth(height, width)).save(tmp_path / "photo.png")
    with Largest() as streamed:
        pipeline.restore_file(tmp_path / "photo.png", tmp_path / "out.png", scale=1, color_fix="wavelet", **QUICK)
    assert streamed.values < 3 * height * width / 2
    assert read(tmp_path / "out.png").height == height


@pytest.mark.usefixtures("everything_is_large")
def test_stopped_or_failed_it_leaves_nothing(pipeline: SupirPipeline, tmp_path: Path) -> None:
    source = transparent(tmp_path / "photo.png")

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.restore_file(source, tmp_path / "out" / "r.png", on_step=stop, **QUICK)
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(ImageWriteError, match="allowed are"):
        pipeline.restore_file(source, tmp_path / "out" / "r.xyz", **QUICK)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_streams() -> None:
    from supir.image import working_size
    from supir.options import RestoreOptions

    options = RestoreOptions()
    assert streaming.is_large(working_size(4000, 3008), options)
    assert not streaming.is_large(working_size(4000, 2900), options)
    assert not streaming.is_large(working_size(4000, 3008), options.replace(reference_quirks=True))
    assert not streaming.is_large(working_size(900, 900, min_size=4096), options)  # shrunk again afterwards


@pytest.mark.parametrize(("size", "result"), [(37, 80), (80, 37), (50, 50), (3, 200), (200, 3), (1, 7), (31, 62)])
def test_a_window_of_a_resized_picture(size: int, result: int) -> None:
    line = torch.rand(1, 1, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = resize(line.expand(1, size, size).contiguous(), result, result, limits=None)
    axis = Resampling(size, result)
    for start, stop in ((0, result), (0, 1), (result // 2, result), (result - 1, result)):
        window, needed = slice(start, stop), axis.needed(slice(start, stop))
        found = line[0, 0, needed] @ axis.weights(window).T
        assert (found - whole[0, 0, window]).abs().max() < 1e-5  # torch's ratio is float32
    assert axis.needed(slice(0, 1)).stop - axis.needed(slice(0, 1)).start <= 4 * max(1, size / result) + 2


def test_mirrored_windows_are_those_of_the_padded_picture() -> None:
    pixels = torch.arange(15.0).reshape(1, 3, 5)
    padded = pad_to_multiple(pixels, 8)
    assert torch.equal(padded[:, 0], pixels[:, 0][:, mirrored_indices(0, 8, 5)])
    assert torch.equal(padded[:, 0, 4:7], pixels[:, 0][:, mirrored_indices(4, 7, 5)])


def test_tiles_come_from_disk_and_go_there(tmp_path: Path) -> None:
    x = torch.rand(1, 2, 40, 56, generator=torch.Generator().manual_seed(1))
    stored = MemmapArray(x.shape, tmp_path)
    stored[..., 0:40, 0:56] = x
    run = tiled(lambda part: part * 2, blended(16, 8), into=lambda shape: MemmapArray(shape, tmp_path))
    found = run(stored)
    assert isinstance(found, MemmapArray)
    assert torch.equal(found[..., 0:40, 0:56], tiled(lambda part: part * 2, blended(16, 8))(x))
    assert list(tmp_path.iterdir()) == []  # nameless


@pytest.mark.parametrize("method", ["wavelet", "adain", "none"])
@pytest.mark.parametrize("rows", [7, 64, 1000])
def test_colour_by_bands(method: str, rows: int) -> None:
    generator = torch.Generator().manual_seed(2)
    sample, style = (torch.randn(2, 3, 150, 40, generator=generator) for _ in range(2))
    found = torch.cat(list(color.fixed_bands(sample, style, method, rows)), -2)
    torch.testing.assert_close(found, color.fix(sample, style, method), atol=2e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_and_seconds_of_64_megapixels() -> None:
    """Against 4 megapixels, the bundled model: at most 1.3 of the memory, 1.15 of the processor seconds a megapixel."""
    command = [sys.executable, str(ROOT / "bench" / "memory_by_size.py"), "4", "64", "--check"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(command, env=environment, check=True, timeout=9000)
