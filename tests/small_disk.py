"""A disk of a few megabytes, really mounted, that a test can fill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: int, *, journaled: bool = False) -> Iterator[Path]:
    """A mounted disk; the test is skipped where it may not be mounted.

    Args:
        folder: where it is made.
        megabytes: its size.
        journaled: as ext4 in a file, as most disks of Linux are; else in memory.
    """
    disk = folder / "disk"
    disk.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)]
    if journaled:
        file = folder / "disk.img"
        with file.open("wb") as stream:
            stream.truncate(megabytes << 20)
        made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", file], capture_output=True, check=False)
        command = ["mount", "-o", "loop", str(file), str(disk)] if made.returncode == 0 else ["false"]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no disk may be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free; the file that does it."""
    file = disk / "fill"
    with file.open("ab", buffering=0) as stream:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while stream.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return file
