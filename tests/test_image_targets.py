"""What cannot be written is found before the work, and a disk that fills up ends in a sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from picture_files import SUFFIXES, smooth
from supir.cli.main import app
from supir.errors import ImageWriteError
from supir.image import Picture, check_target, write, write_in_bands
from supir.jobs.job import Job
from supir.jobs.model import Model
from supir.jobs.restoring import restore_job
from supir.pipeline import SupirPipeline
from supir.restoration import streaming
from supir.restoration.restorer import Restorer
from supir.tensors.arrays import MemmapArray
from tiny import tiny_pipeline

QUICK: dict[str, Any] = {"min_size": 64, "num_steps": 1, "tile": 64, "vae_tile": 64, "scale": 1.0}


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> SupirPipeline:
    """One whose networks must not run."""

    def run(*_: object, **__: object) -> None:
        raise AssertionError("the networks ran")

    monkeypatch.setattr(Restorer, "restore", run)
    monkeypatch.setattr(Restorer, "restore_large", run)
    return tiny_pipeline()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(smooth()).save(path)
    return path


def unwritable(folder: Path) -> dict[Path, str]:
    """Paths, and what is said of each."""
    (folder / "folder.png").mkdir()
    (folder / "file").touch()
    return {
        folder / "a.gif": r"suffix '\.gif'; allowed are \.jpg",
        folder / "a": r"suffix ''; allowed are \.jpg",
        folder / "folder.png": "is a folder; name a file",
        folder / "file" / "a.png": "cannot be written: is a file, so nothing can be written below it",
        folder / "new" / ("x" * 300 + ".png"): "cannot be written: the name has 304 bytes; a name has 255 at most",
        folder / ("y" * 300) / "a.png": "cannot be written: the name is longer than this disk allows",
        folder / "a\0.png": "cannot be written: (embedded null|lstat: embedded null)",
        Path("/proc/a.png"): "cannot be written",
    }


def test_every_target_that_fails_is_found_before_the_networks_run(
    pipeline: SupirPipeline, photo: Path, tmp_path: Path
) -> None:
    for path, reason in unwritable(tmp_path).items():
        with pytest.raises(ImageWriteError, match=reason):
            write(Picture(pixels=torch.zeros(3, 4, 4)), path)
        with pytest.raises(ImageWriteError, match=reason):
            pipeline.restore_file(photo, path, **QUICK)
        with pytest.raises(ImageWriteError, match=reason):
            pipeline.restore_file(photo, tmp_path / "good.png", preview=path, **QUICK)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png", "photo.png"]


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 16384), (".jpg", 65501)])
def test_formats_with_a_largest_side(pipeline: SupirPipeline, tmp_path: Path, suffix: str, side: int) -> None:
    check_target(tmp_path / f"a{suffix}", (side - 1, 3))
    for size in ((side, 3), (3, side)):
        with pytest.raises(ImageWriteError, match=rf"{size[1]} x {size[0]} pixels; .* choose \.png or \.tiff"):
            check_target(tmp_path / f"a{suffix}", size)
    Image.new("L", (side // 2 + 1, 1)).save(tmp_path / "long.png")
    with pytest.raises(ImageWriteError, match="a side at most"):
        pipeline.restore_file(tmp_path / "long.png", tmp_path / f"a{suffix}", **QUICK | {"scale": 2.0})
    # The sheet of before and after is twice as wide, and the only one that is too large.
    sheet = tmp_path / f"a.compare{suffix}"
    job = Job(source=tmp_path / "long.png", target=tmp_path / "a.png", compare=sheet, options=pipeline.options(**QUICK))
    assert "a side at most" in (restore_job(pipeline, job).error or "")


def test_the_command_says_so_before_it_loads_the_weights(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "open", lambda *_: pytest.fail("the weights were loaded"))
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, ["restore", str(photo), "-o", str(tmp_path / "file" / "a.png")])
    assert done.exit_code == 1
    assert "is a file, so nothing can be written below it" in done.output
    assert "0 restored, 1 failed" in done.output


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond this many bytes of a file fail, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_every_writer_says_why_the_disk_takes_no_more(tmp_path: Path, suffix: str) -> None:
    path, rows = tmp_path / f"a{suffix}", torch.rand(3, 200, 200) * 2 - 1
    frame = Picture(pixels=rows[:, :1, :1])
    reason = "larger than a file on this disk may be; choose another disk"
    with file_size_limit(2000):
        with pytest.raises(ImageWriteError, match=rf"a{suffix}: cannot be written: {reason}"):
            write(Picture(pixels=rows), path)
        with pytest.raises(ImageWriteError, match=rf"a{suffix}: cannot be written: {reason}"):
            write_in_bands(frame, (200, 200), iter([Picture(pixels=rows)]), path)
    assert list(tmp_path.iterdir()) == []


def test_numbers_on_a_full_disk_are_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    with file_size_limit(2**20), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        MemmapArray((1, 3, 1000, 1000), tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_fills_up_meanwhile(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(in_another_process(fill, disk), 0)[1]) == 0
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(disk: Path) -> None:
    """A store whose room another takes, where none can be reserved."""
    del os.posix_fallocate
    store = MemmapArray((1, 3, 250, 250), disk)
    (disk / "filler").write_bytes(bytes(500_000))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        store[..., 0:250, 0:250] = torch.ones(1, 3, 250, 250)


def in_another_process(work: Callable[[Path], None], folder: Path) -> int:
    """Its number: what a full disk might end is not this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which this child has no use for
        number = os.fork()
    if number == 0:
        try:
            work(folder)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return number


def test_a_large_picture_asks_for_room_before_any_work(
    pipeline: SupirPipeline, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LARGE", 100)
    monkeypatch.setattr(streaming.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(ImageWriteError, match=r"GB are needed in its folder while it is made, and 0\.0 GB are free"):
        pipeline.restore_file(photo, tmp_path / "out" / "a.png", **QUICK | {"scale": 8.0})


def test_a_killed_writer_leaves_only_names_that_a_batch_sweeps(tmp_path: Path) -> None:
    from supir.jobs.batch import opened

    out = tmp_path / "out"
    with opened(out):
        pass
    frame, seen = Picture(pixels=torch.zeros(3, 1, 1)), []

    def bands() -> Iterator[Picture]:
        yield Picture(pixels=torch.zeros(3, 5, 8))
        seen.extend(path.name for path in out.iterdir() if path.suffix == ".tmp")
        for name in seen:  # what a kill would leave
            (out / f"{name}.copy").touch()
        yield Picture(pixels=torch.zeros(3, 5, 8))

    write_in_bands(frame, (10, 8), bands(), out / "large.png")
    assert len(seen) == 2, "the picture, and its integers"
    for path in out.glob(".*.copy"):
        path.rename(path.with_suffix(""))
    with opened(out):
        assert sorted(path.name for path in out.iterdir()) == [".batch.lock", "batch.jsonl", "large.png"]
