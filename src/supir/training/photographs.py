"""Where training pictures come from: tiles, folders of pictures, shards; one small protocol for all.

A source is asked for one crop by one sample's generator and answers from nothing else, so that sample n of a run is the
same in any process, worker or continuation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from supir.errors import OptionError
from supir.image import find_pictures, read

Pixels = npt.NDArray[np.uint8]
LABELS = "labels.jsonl"
"""Beside pictures of a folder: one JSON object a line, ``file``, ``caption``, ``negative``, and where it came from."""
KEPT = 64
"""Decoded pictures of a folder held in memory."""


@dataclass(frozen=True)
class Crop:
    """Pixels (size, size, 3) uint8 RGB, what they show, and whether they are of negative quality."""

    pixels: Pixels
    caption: str = ""
    negative: bool = False


class Photographs(Protocol):
    """A source of crops."""

    def __len__(self) -> int:
        """The number of pictures."""

    def draw(self, rng: np.random.Generator, size: int) -> Crop:
        """A random crop, the same for the same generator."""


def random_crop(rng: np.random.Generator, pixels: Pixels, size: int) -> Pixels:
    """A random crop (size, size, 3), mirrored half of the time; smaller pictures are reflected at their borders."""
    spare = [side - size for side in pixels.shape[:2]]
    if min(spare) < 0:
        margins = [(0, max(0, -room)) for room in spare]
        pixels = np.pad(pixels, (*margins, (0, 0)), mode="symmetric")
    top, left = (int(rng.integers(max(0, room) + 1)) for room in spare)
    crop = pixels[top : top + size, left : left + size]
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


class PictureFolder:
    """The pictures of a folder; captions and labels from ``labels.jsonl``, or from NAME.txt beside NAME.jpg."""

    def __init__(self, folder: Path) -> None:
        self.paths = [Path(path) for path in find_pictures([str(folder)])]
        self.labels: dict[Path, dict[str, Any]] = {}
        for file in folder.glob(LABELS):
            for line in file.read_text().splitlines():
                label = json.loads(line)
                self.labels[file.parent / label["file"]] = label

    def __len__(self) -> int:
        return len(self.paths)

    def draw(self, rng: np.random.Generator, size: int) -> Crop:
        """See ``Photographs``."""
        path = self.paths[int(rng.integers(len(self.paths)))]
        label = self.labels.get(path, {})
        words = path.with_suffix(".txt")
        caption = label.get("caption") or (words.read_text().strip() if words.exists() else "")
        return Crop(random_crop(rng, _read_pixels(path), size), caption, bool(label.get("negative", False)))


@lru_cache(maxsize=KEPT)
def _read_pixels(path: Path) -> Pixels:
    values = read(path).rgb.clamp(-1, 1).add(1).mul(127.5).round().byte()
    return np.ascontiguousarray(values.permute(1, 2, 0).numpy())


class Shards:
    """A data set built by ``supir data build``; a broken picture is passed over."""

    def __init__(self, folder: Path) -> None:
        from supir.data.photos import Photos

        self._photos = Photos(folder)

    def __len__(self) -> int:
        return len(self._photos)

    def draw(self, rng: np.random.Generator, size: int) -> Crop:
        """See ``Photographs``."""
        found = self._photos.draw(rng)
        return Crop(random_crop(rng, found.pixels, size), found.caption, found.negative)


class Mixed:
    """Several sources, each drawn from in proportion to the number of its pictures."""

    def __init__(self, sources: Sequence[Photographs]) -> None:
        self.sources = list(sources)
        counts = np.array([len(source) for source in self.sources], float)
        self._ends = np.cumsum(counts / counts.sum())

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def draw(self, rng: np.random.Generator, size: int) -> Crop:
        """See ``Photographs``."""
        number = int(np.searchsorted(self._ends[:-1], rng.random(), side="right"))
        return self.sources[number].draw(rng, size)


def open_photographs(folders: Sequence[Path], split: str = "train") -> Photographs:
    """The pictures of folders, each of tiles (``train.npy``), shards (``*.tar``) or plain pictures.

    Args:
        folders: at least one.
        split: of tiles: ``train`` or ``heldout``.

    Raises:
        OptionError: a folder is missing.
        ImageReadError: a folder holds no picture.
    """
    from supir.training.crops import Tiles

    sources: list[Photographs] = []
    for folder in folders:
        if not folder.is_dir():
            raise OptionError(f"{folder} is no folder; give one of photographs, tiles or shards")
        if (folder / f"{split}.npy").exists():
            sources.append(Tiles(folder, split))
        elif any(folder.glob("*.tar")):
            sources.append(Shards(folder))
        else:
            sources.append(PictureFolder(folder))
    if not sources:
        raise OptionError("no folder of pictures was given")
    return sources[0] if len(sources) == 1 else Mixed(sources)
