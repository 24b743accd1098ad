"""Which system this is. Asked as ``system.WINDOWS``, so that a test can be another system for a while."""

import os
import sys
from collections.abc import Callable

WINDOWS, MACOS = os.name == "nt", sys.platform == "darwin"

full_sync: Callable[[int], object] | None = None
"""Waits until an open file is on the disk, where `os.fsync` waits for less; None where that is enough."""

if sys.platform == "darwin":
    import fcntl

    def full_sync(descriptor: int) -> object:
        """macOS's fsync ends when the drive has the bytes, which then may still lose them."""
        return fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
