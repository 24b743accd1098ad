"""Where training pictures come from: tiles, folders of pictures, shards; one small class for all.

A source is asked for one crop by one sample's generator and number and answers from nothing else, so that sample n of a
run is the same in any process, worker or continuation.
"""

from __future__ import annotations

import json
import math
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from supir.data.photos import LeftOut, Photos
from supir.data.pixels import Pixels
from supir.data.sources import decoded
from supir.errors import ImageError, ImageReadError, OptionError
from supir.image import find_pictures, read

SHARPNESS_PREFERENCE = 2.5
"""Power applied to the rank that is drawn: 1 takes all tiles alike, 2.5 the sharpest 40 % two times of three."""
LABELS = "labels.jsonl"
"""Beside pictures of a folder: one JSON object a line, ``file``, ``caption``, ``negative``, and where it came from."""
MOST_HELD = 6
"""Pictures of a source that are held out where no others are named."""
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
    def paths(self) -> Sequence[Path]:
        """The picture files, where it reads such."""
        return ()

    def parted(self) -> tuple[Photographs, Photographs]:
        """(to learn from, held out): no picture is in both, and the same ones are held out each time.

        Raises:
            OptionError: there is nothing to hold out.
        """
        raise NotImplementedError

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

    def __init__(self, folder: Path, paths: Sequence[Path] | None = None) -> None:
        self.folder = folder
        self._paths = list(map(Path, find_pictures([str(folder)]))) if paths is None else list(paths)
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
    def paths(self) -> Sequence[Path]:
        """See ``Photographs``."""
        return self._paths

    def parted(self) -> tuple[PictureFolder, PictureFolder]:
        """See ``Photographs``; chosen by their names, so that other pictures may come and go."""

        def place(path: Path) -> int:
            return zlib.crc32(path.relative_to(self.folder).as_posix().encode(errors="surrogateescape"))

        held = set(sorted(self.paths, key=place)[: _number_held(self.folder, len(self.paths))])
        learned = [path for path in self.paths if path not in held]
        return PictureFolder(self.folder, learned), PictureFolder(self.folder, sorted(held))

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

    def parted(self) -> tuple[Tiles, Tiles]:
        """See ``Photographs``; tiles are parted when they are made, as two may be of one photograph."""
        return self, Tiles(self._where[0], "heldout")

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

    def __init__(
        self,
        folders: Sequence[Path],
        weights: Sequence[float] | None = None,
        seed: int = 0,
        without: Collection[int] = (),
    ) -> None:
        from supir.data.stream import PhotoStream

        self._made = folders, weights, seed
        self._stream = PhotoStream(folders, weights, seed=seed, without=without)

    def __len__(self) -> int:
        return len(self._stream.photos) - len(self._stream.photos.without)

    @property
    def num_left_out(self) -> int:
        """See ``Photographs``."""
        return self._stream.num_broken

    def parted(self) -> tuple[Shards, HeldOut]:
        """See ``Photographs``."""
        photos = self._stream.photos
        number = _number_held(photos.folders[0], len(photos))
        held = np.random.default_rng(0).choice(len(photos), number, replace=False).tolist()
        return Shards(*self._made, without=held), HeldOut(photos, held)

    def draw(self, rng: np.random.Generator, size: int, number: int | None = None) -> Crop:
        """See ``Photographs``."""
        found = self._stream.photos.draw(rng) if number is None else self._stream[number]
        return Crop(random_crop(rng, found.pixels, size), found.caption, found.negative)


class HeldOut(Photographs):
    """Some pictures of built data sets, by their numbers."""

    def __init__(self, photos: Photos, numbers: Sequence[int]) -> None:
        self._photos, self._numbers = photos, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def draw(self, rng: np.random.Generator, size: int, number: int | None = None) -> Crop:
        """See ``Photographs``.

        Raises:
            ImageReadError: the picture is broken.
        """
        found = self._photos.sample(self._numbers[int(rng.integers(len(self._numbers)))])
        return Crop(random_crop(rng, found.pixels, size), found.caption, found.negative)


class Mixed(Photographs):
    """Several sources, each drawn from by its weight; unset: in proportion to the number of its pictures."""

    def __init__(self, sources: Sequence[Photographs], weights: Sequence[float] | None = None) -> None:
        self.sources = list(sources)
        self._weights = weights or [len(source) for source in self.sources]
        counts = np.array(self._weights, float)
        self._ends = np.cumsum(counts / counts.sum())

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    @property
    def num_left_out(self) -> int:
        """See ``Photographs``."""
        return sum(source.num_left_out for source in self.sources)

    @property
    def paths(self) -> Sequence[Path]:
        """See ``Photographs``."""
        return [path for source in self.sources for path in source.paths]

    def parted(self) -> tuple[Mixed, Mixed]:
        """See ``Photographs``; each source is parted by itself."""
        learned, held = zip(*(source.parted() for source in self.sources), strict=True)
        return Mixed(learned, self._weights), Mixed(held, self._weights)

    def draw(self, rng: np.random.Generator, size: int, number: int | None = None) -> Crop:
        """See ``Photographs``."""
        chosen = int(np.searchsorted(self._ends[:-1], rng.random(), side="right"))
        return self.sources[chosen].draw(rng, size, number)


def _number_held(folder: Path, number: int) -> int:
    """How many of so many pictures are held out: an eighth, at least one and at most ``MOST_HELD``."""
    if number < 2:
        raise OptionError(f"{folder}: {number} picture, and none to hold out; name others by --heldout")
    return min(MOST_HELD, max(1, number // 8))


def open_photographs(folders: Sequence[Path], *, weights: Sequence[float] | None = None, seed: int = 0) -> Photographs:
    """The pictures of folders, each of tiles (``train.npy``), shards (``*.tar``) or plain pictures.

    Args:
        folders: at least one.
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
    if all(_is_built(folder) for folder in folders):
        return Shards(folders, weights, seed)
    sources = [_opened(folder, seed) for folder in folders]
    return sources[0] if len(sources) == 1 else Mixed(sources, weights)


def _is_built(folder: Path) -> bool:
    return not (folder / "train.npy").exists() and any(folder.glob("*.tar"))


def _opened(folder: Path, seed: int) -> Photographs:
    if _is_built(folder):
        return Shards([folder], seed=seed)
    return Tiles(folder) if (folder / "train.npy").exists() else PictureFolder(folder)
