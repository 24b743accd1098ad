"""Items of the data that cannot be used: told once each, counted, and gone on without."""

from __future__ import annotations

import logging
import zlib

import torch
from torch.utils.data import get_worker_info

__all__ = ["LeftOut"]

logger = logging.getLogger(__name__)

_MAX_WORKERS = 1024
_PLACES = 1 << 16


class LeftOut:
    """What was left out by this process and the DataLoader workers that it begins: they share memory for it.

    Args:
        what: is left out, for the log.
    """

    def __init__(self, what: str = "left out") -> None:
        self._what = what
        self._counts = torch.zeros(_MAX_WORKERS, dtype=torch.int64)  # one place for each worker: none waits
        self._told = torch.zeros(_PLACES, dtype=torch.uint8)  # by a hash of the item's name
        for shared in (self._counts, self._told):
            shared.share_memory_()  # type: ignore[no-untyped-call]

    def __int__(self) -> int:
        """How often something was left out, each time an item was met counted."""
        return int(self._counts.sum())

    def add(self, item: str, error: Exception) -> None:
        """Count an item, and tell the first time why."""
        worker = get_worker_info()
        self._counts[0 if worker is None else worker.id % _MAX_WORKERS] += 1
        place = zlib.crc32(item.encode(errors="replace")) % _PLACES
        if not self._told[place]:
            self._told[place] = 1
            logger.warning("%s: %s", self._what, error)
