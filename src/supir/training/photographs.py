"""Where training pictures come from: tiles, folders of pictures, shards; one small class for all.

A source is asked for one crop by one sample's generator and number and answers from nothing else, so that sample n of a
run is the same in any process, worker or continuation.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from supir.data.photos import LeftOut
from supir.data.pixels import Pixels
from supir.data.sources import decoded
from supir.errors import ImageError, ImageReadError, OptionError
from supir.image import find_pictures, read

SHARPNESS_PREFERENCE = 2.5
"""Power applied to the rank that is drawn: 1 takes all tiles alike, 2.5 the sharpest 40 % two times of three."""
LABELS = "labels.jsonl"
"""Beside pictures of a folder: one JSON object a line, ``file``, ``caption``, ``negative``, and where it came from."""
KEPT_BYTES = 256_000_000
"""Of decoded pictures that a process holds, whatever the number of folders; the last ones that were asked for."""


@dataclass(frozen=True)
class Crop:
    """Pixels (size, size, 3) uint8 RGB, what they show, and whether they are of negative quality."""

    pixels: Pixels
    caption: str = ""
    negative: bool = False


class Photographs:
    """A source of crops; its length is the number of pictures."""

    @property
    def num_left_out(self) -> int:
        """How often a picture or its words could not be used so far."""
        return 0

    def __len__(self) -> int:
        raise NotImplementedError

    def draw(self, rng: np.random.Generator, size: int, number: int | None = None) -> Crop:
        """A random crop (size, size, 3), the same for the same generator, which is the sample's own, and number.

        ``number`` is that of the sample in its run: a built data set gives its pictures in an order by it, each once a
        pass. None: any picture.
        """
        raise NotImplementedError


def random_crop(rng: np.random.Generator, pixels: Pixels, size: int) -> Pixels:
    """A random crop (size, size, 3), mirrored half of the time; smaller pictures are reflected at their borders."""
    spare = [side - size for side in pixels.shape[:2]]
    if min(spare) < 0:
        margins = [(0, max(0, -room)) for room in spare]
        pixels = np.pad(pixels, (*margins, (0, 0)), mode="symmetric")
    top, left = (int(rng.integers(max(0, room) + 1)) for room in spare)
    crop = pixels[top : top + size, left : left + size]
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


class PictureFolder(Photographs):
    """The pictures of a folder; captions and labels from ``labels.jsonl``, or from NAME.txt beside NAME.jpg.

    A picture that cannot be read is replaced by the next whole one, words that cannot be are left out: each is told
    once and counted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = [Path(path) for path in find_pictures([str(folder)])]
        self.left_out = LeftOut()
        self.labels: dict[Path, dict[str, Any]] = {}
        labels = (folder / LABELS).read_bytes() if (folder / LABELS).is_file() else b""
        for number, line in enumerate(labels.splitlines(), 1):
            try:
                label = json.loads(line)
                self.labels[folder / label["file"]] = label
            except (ValueError, TypeError, KeyError) as error:
                self._leave(f"{folder / LABELS}: line {number}", error)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_left_out(self) -> int:
        """See ``Photographs``."""
        return int(self.left_out)

    def draw(self, rng: np.random.Generator, size: int, number: int | None = None) -> Crop:
        """See ``Photographs``.

        Raises:
            ImageReadError: no picture of the folder can be read.
        """
        first = int(rng.integers(len(self.paths)))
        for path in (*self.paths[first:], *self.paths[:first]):
            try:
                pixels = _decoded(path)
            except (ImageError, OSError) as error:
                self._leave(str(path), error)
                continue
            label = self.labels.get(path, {})
            caption = label.get("caption") or self._words(path.with_suffix(".txt"))
            return Crop(random_crop(rng, pixels, size), caption, bool(label.get("negative", False)))
        raise ImageReadError(f"{self.folder}: none of its {len(self.paths)} pictures can be read", self.folder)

    def _words(self, path: Path) -> str:
        try:
            return decoded(path.read_bytes(), str(path)).strip()
        except FileNotFoundError:
            return ""
        except (ImageError, OSError) as error:
            self._leave(str(path), error)
            return ""

    def _leave(self, item: str, error: Exception) -> None:
        self.left_out.add(item, error if item in str(error) else OptionError(f"{item}: {error}"))


class Tiles(Photographs):
    """Tiles of one split, read through a memory map: ``pixels`` (N, S, S, 3) uint8 RGB, ``captions`` one a tile.

    They are stored sharpest first.

    Raises:
        OptionError: they are not there, or damaged.
    """

    def __init__(self, folder: Path, split: str = "train") -> None:
        self._where = folder, split
        try:
            self.pixels: Pixels = np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
            self.captions: list[str] = json.loads((folder / f"{split}_captions.json").read_bytes())
        except (OSError, ValueError, EOFError) as error:
            raise OptionError(f"{folder}: its {split} tiles cannot be read ({error}); make them again") from error
        if len(self.captions) != len(self.pixels):
            raise OptionError(f"{folder}: {len(self.pixels)} {split} tiles and {len(self.captions)} captions")

    def __len__(self) -> int:
        return len(self.pixels)

    def __reduce__(self) -> tuple[type[Tiles], tuple[Path, str]]:
        return Tiles, self._where  # a memory map would be pickled as all its pixels

    def draw(self, rng: np.random.Generator, size: int, number: int | None = None) -> Crop:
        """See ``Photographs``; mirrored or transposed by chance; sharp tiles more often."""
        index = int(len(self.pixels) * rng.random() ** SHARPNESS_PREFERENCE)
        spare = self.pixels.shape[1] - size
        top, left = (int(rng.integers(spare + 1)) for _ in range(2))
        crop = self.pixels[index, top : top + size, left : left + size]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if rng.random() < 0.1:
            crop = crop.transpose(1, 0, 2)
        return Crop(np.ascontiguousarray(crop), self.captions[index])


class Recent:
    """Pictures as a function of their paths, those asked for last held up to a number of bytes."""

    def __init__(self, read: Callable[[Path], Pixels], limit: int) -> None:
        self._read, self.limit = read, limit
        self._held: OrderedDict[Path, Pixels] = OrderedDict()
        self.num_bytes = 0

    def __call__(self, path: Path) -> Pixels:
        """The picture, (H, W, 3)."""
        if path in self._held:
            self._held.move_to_end(path)
            return self._held[path]
        pixels = self._read(path)
        if pixels.nbytes <= self.limit:
            self._held[path] = pixels
            self.num_bytes += pixels.nbytes
        while self.num_bytes > self.limit:
            self.num_bytes -= self._held.popitem(last=False)[1].nbytes
        return pixels


def _read_pixels(path: Path) -> Pixels:
    values = read(path).rgb.clamp(-1, 1).add(1).mul(127.5).round().byte()
    return np.ascontiguousarray(values.permute(1, 2, 0).numpy())


_decoded = Recent(_read_pixels, KEPT_BYTES)


class Shards(Photographs):
    """Data sets built by ``supir data build``, gone through pass by pass; a broken picture is passed over."""

    def __init__(self, folders: Sequence[Path], weights: Sequence[float] | None = None, seed: int = 0) -> None:
        from supir.data.stream import PhotoStream

        self._stream = PhotoStream(folders, weights, seed=seed)

    def __len__(self) -> int:
        return len(self._stream.photos)

    @property
    def num_left_out(self) -> int:
        """See ``Photographs``."""
        return self._stream.num_broken

    def draw(self, rng: np.random.Generator, size: int, number: int | None = None) -> Crop:
        """See ``Photographs``."""
        found = self._stream.photos.draw(rng) if number is None else self._stream[number]
        return Crop(random_crop(rng, found.pixels, size), found.caption, found.negative)


class Mixed(Photographs):
    """Several sources, each drawn from by its weight; unset: in proportion to the number of its pictures."""

    def __init__(self, sources: Sequence[Photographs], weights: Sequence[float] | None = None) -> None:
        self.sources = list(sources)
        counts = np.array(weights or [len(source) for source in self.sources], float)
        self._ends = np.cumsum(counts / counts.sum())

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    @property
    def num_left_out(self) -> int:
        """See ``Photographs``."""
        return sum(source.num_left_out for source in self.sources)

    def draw(self, rng: np.random.Generator, size: int, number: int | None = None) -> Crop:
        """See ``Photographs``."""
        chosen = int(np.searchsorted(self._ends[:-1], rng.random(), side="right"))
        return self.sources[chosen].draw(rng, size, number)


def open_photographs(
    folders: Sequence[Path], split: str = "train", *, weights: Sequence[float] | None = None, seed: int = 0
) -> Photographs:
    """The pictures of folders, each of tiles (``train.npy``), shards (``*.tar``) or plain pictures.

    Args:
        folders: at least one.
        split: of tiles: ``train`` or ``heldout``.
        weights: share of each folder among the samples; unset: all pictures alike.
        seed: of the order in which data sets are gone through.

    Raises:
        OptionError: a folder is missing, or the weights are not one positive number for each.
        ImageReadError: a folder holds no picture.
    """
    if not folders:
        raise OptionError("no folder of pictures was given")
    if weights and (len(weights) != len(folders) or not all(0 < weight < math.inf for weight in weights)):
        given = ", ".join(f"{weight:g}" for weight in weights)
        raise OptionError(f"weights are {given} for {len(folders)} folders; one above 0 for each is needed")
    for folder in folders:
        if not folder.is_dir():
            raise OptionError(f"{folder} is no folder; give one of photographs, tiles or shards")
    if all(_is_built(folder, split) for folder in folders):
        return Shards(folders, weights, seed)
    sources = [_opened(folder, split, seed) for folder in folders]
    return sources[0] if len(sources) == 1 else Mixed(sources, weights)


def _is_built(folder: Path, split: str) -> bool:
    return not (folder / f"{split}.npy").exists() and any(folder.glob("*.tar"))


def _opened(folder: Path, split: str, seed: int) -> Photographs:
    if _is_built(folder, split):
        return Shards([folder], seed=seed)
    return Tiles(folder, split) if (folder / f"{split}.npy").exists() else PictureFolder(folder)
