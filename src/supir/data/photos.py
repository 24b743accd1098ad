"""Random access to built data sets: any picture by its number, read with two seeks, nothing held in memory."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import get_worker_info

from supir.data.pixels import Pixels, decode
from supir.data.shards import INDEX, INDEX_TYPE, shard_name
from supir.errors import ImageError, ImageReadError, OptionError
from supir.files import open_to_read, read_at

logger = logging.getLogger(__name__)

_MAX_WORKERS = 1024
_PLACES = 1 << 16


class LeftOut:
    """What was left out by this process and the DataLoader workers that it begins: they share memory for it."""

    def __init__(self) -> None:
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
            logger.warning("left out: %s", error)


MAX_PIXELS = 150_000_000
"""Default of `Photos`: a picture of a shard that claims more counts as broken."""
MAX_TRIES = 1000
"""Broken pictures in a row after which one gives up."""

_MAX_OPEN = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """A picture for training."""

    key: str
    """Its key in the shard; unique within a folder."""
    pixels: Pixels
    """(H, W, 3) uint8, RGB, sRGB, upright; may be read-only."""
    caption: str
    """Empty if it has none."""
    negative: bool
    """An example of bad quality, for the negative prompt."""
    source: str
    """The photograph's path, as it was found when the set was built."""


class Photos:
    """One or several built folders as a sequence of samples.

    Picklable, and safe to use in forked processes: reads name their place and share no position. Threads need one each.

    Args:
        folders: what `supir data build` wrote.
        weights: of each folder, for `draw`; unset: every picture is as likely as any other.
        max_pixels: a picture that claims more (width times height) counts as broken and is not decoded.
        without: numbers of samples that neither `draw` nor a stream gives.

    Raises:
        OptionError: a folder that is not a finished data set, or weights that do not fit.
    """

    def __init__(
        self,
        folders: Path | str | Sequence[Path | str],
        weights: Sequence[float] | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
        without: Collection[int] = (),
    ) -> None:
        names = [folders] if isinstance(folders, str | Path) else list(folders)
        self.folders = tuple(Path(name) for name in names)
        if not self.folders:
            raise OptionError("no folder of pictures is given; at least one is needed")
        self.max_pixels, self.without = max_pixels, frozenset(without)
        self.indices: tuple[npt.NDArray[Any], ...] = tuple(_index(folder) for folder in self.folders)
        self.starts: tuple[int, ...] = tuple(int(n) for n in np.cumsum([0, *map(len, self.indices)]))
        """Number of each folder's first sample, and of all samples at the end."""
        sizes = [len(index) for index in self.indices]
        self.weights = _checked(weights, len(sizes)) if weights is not None else _shares(sizes)
        self.left_out = LeftOut()
        self._open: OrderedDict[tuple[int, int], int] = OrderedDict()

    def __len__(self) -> int:
        return self.starts[-1]

    def sample(self, number: int) -> Sample:
        """Sample `number`, 0 to `len` - 1, over all folders in their order.

        Raises:
            IndexError: no such number.
            ImageReadError: the picture or its record is broken, or its shard is gone; `ImageTooLargeError` likewise.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number}; there are {len(self)}")
        folder = int(np.searchsorted(self.starts, number, side="right")) - 1
        entry = self.indices[folder][number - self.starts[folder]]
        shard = int(entry["shard"])
        path = self.folders[folder] / shard_name(shard)
        try:
            picture = self._bytes(folder, shard, int(entry["picture"]), int(entry["picture_size"]))
            record = json.loads(self._bytes(folder, shard, int(entry["record"]), int(entry["record_size"])))
            return Sample(
                key=entry["key"].decode(),
                pixels=decode(picture, self.max_pixels),
                caption=str(record["caption"]),
                negative=record["negative"] is True,
                source=str(record["source"]),
            )
        except ImageError as error:
            error.args = (f"{path}: sample {entry['key'].decode(errors='replace')}: {error}",)
            error.path = path
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            key = entry["key"].decode(errors="replace")
            raise ImageReadError(f"{path}: sample {key}: cannot be read: {error}", path) from error

    def draw(self, random: np.random.Generator) -> Sample:
        """A sample by chance: a folder by weight, then any of its pictures; broken ones are left out and drawn anew.

        Raises:
            ImageReadError: `MAX_TRIES` broken ones in a row.
        """
        for _ in range(MAX_TRIES):
            folder = int(random.choice(len(self.folders), p=self.weights))
            number = self.starts[folder] + int(random.integers(len(self.indices[folder])))
            if number in self.without:
                continue
            try:
                return self.sample(number)
            except ImageError as error:
                self.left_out.add(str(number), error)
        raise ImageReadError(f"{MAX_TRIES} pictures in a row cannot be read, in {', '.join(map(str, self.folders))}")

    def close(self) -> None:
        """Closes the shards; they are opened again when they are needed."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        # an open file does not travel to another process, and the index is mapped there anew instead of copied
        names = ("folders", "weights", "max_pixels", "without", "left_out")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            state["folders"], state["weights"], max_pixels=state["max_pixels"], without=state["without"]
        )
        self.left_out = state["left_out"]

    def _bytes(self, folder: int, shard: int, start: int, size: int) -> bytes:
        place = (folder, shard)
        if place not in self._open:
            if len(self._open) >= _MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[place] = open_to_read(self.folders[folder] / shard_name(shard))
        self._open.move_to_end(place)
        if start + size > os.fstat(self._open[place]).st_size:  # asked before memory is taken for it
            raise ImageReadError("lies beyond the end of its shard, which was cut off")
        data = read_at(self._open[place], size, start)
        if len(data) < size:
            raise ImageReadError("its shard was cut off while being read")
        return data


def _index(folder: Path) -> npt.NDArray[Any]:
    path = folder / INDEX
    try:
        empty = path.stat().st_size < 1
        index: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise OptionError(
            f"{folder}: no finished data set ({INDEX} is missing); make it with `supir data build PHOTOS --out FOLDER`"
        ) from error
    except (OSError, ValueError, EOFError) as error:
        raise OptionError(f"{path}: damaged ({error}); run `supir data build` with the same options again") from error
    if empty or index.dtype != INDEX_TYPE or index.ndim != 1:
        raise OptionError(f"{path}: damaged or of another version; run `supir data build` again")
    if len(index) == 0:
        raise OptionError(f"{folder}: a data set without pictures; its report says why none was kept")
    return index


def _checked(weights: Sequence[float], num_folders: int) -> tuple[float, ...]:
    values = tuple(float(weight) for weight in weights)
    if len(values) != num_folders or not all(0 < weight < float("inf") for weight in values):
        raise OptionError(f"weights are {values} for {num_folders} folders; one above 0 for each is needed")
    return _shares(values)


def _shares(sizes: Sequence[float]) -> tuple[float, ...]:
    return tuple(size / sum(sizes) for size in sizes)
