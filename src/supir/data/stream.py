"""Built data sets as an endless stream for training, in an order that is arithmetic.

Position p of the stream is a pure function of (folders, weights, seed, p). So rank r of R takes the positions r, r + R,
r + 2 R ..., the order does not depend on the number of DataLoader workers, and to resume is to begin at a position.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from supir.data.photos import MAX_PIXELS, MAX_TRIES, Photos, Sample
from supir.errors import ImageError, ImageReadError, OptionError

CYCLE = 1000
"""Positions in which each weighted folder gets exactly its share."""


class Order:
    """Which sample lies at which position, for ever.

    Without weights every pass over all folders together is an epoch: each sample once. With weights every `CYCLE`
    positions hold each folder in its share, and each folder is gone through pass by pass, by itself.

    A pass is shuffled in blocks: the shards, then the samples of `window` shards that follow one another, so that at
    any time reads stay within a few files.
    """

    def __init__(self, photos: Photos, *, weighted: bool, seed: int, window: int) -> None:
        self._seed = seed
        self._window = window
        starts = photos.starts
        bounds = list(pairwise(starts)) if weighted else [(0, starts[-1])]
        self._shards = [_shards(photos, low, high) for low, high in bounds]
        self._sizes = [high - low for low, high in bounds]
        self._slots = np.repeat(np.arange(len(bounds)), _apportioned(photos.weights if weighted else (1.0,)))
        self._cached_pass = lru_cache(maxsize=2 * len(bounds))(self._pass)
        self._cached_window = lru_cache(maxsize=4 * len(bounds))(self._samples)
        self._cached_cycle = lru_cache(maxsize=2)(lambda cycle: self._random(0, cycle).permutation(self._slots))

    def at(self, position: int, offset: int = 0) -> int:
        """Number of the sample at a position; `offset` places further in the same folder, in place of a broken one."""
        cycle, slot = divmod(position, CYCLE)
        group = 0
        place = position
        if len(self._sizes) > 1:
            groups = self._cached_cycle(cycle)
            group = int(groups[slot])
            place = cycle * int((groups == group).sum()) + int((groups[:slot] == group).sum())
        turn, place = divmod(place + offset, self._sizes[group])
        ends = self._cached_pass(group, turn)[1]
        window = int(np.searchsorted(ends, place, side="right"))
        begin = int(ends[window - 1]) if window else 0
        return int(self._cached_window(group, turn, window)[place - begin])

    def _pass(self, group: int, turn: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The (start, size) of the shards in their order, and where each window ends, in samples."""
        shards = self._random(1, group, turn).permutation(self._shards[group])
        ends = np.cumsum(shards[:, 1])
        last = np.append(ends[self._window - 1 :: self._window], ends[-1])
        return shards, np.unique(last)

    def _samples(self, group: int, turn: int, window: int) -> npt.NDArray[Any]:
        shards = self._cached_pass(group, turn)[0][window * self._window : (window + 1) * self._window]
        numbers = np.concatenate([np.arange(start, start + size) for start, size in shards])
        return self._random(2, group, turn, window).permutation(numbers)

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self._seed, *what]))


class PhotoStream(Dataset[Sample]):
    """Samples by their positions in an endless stream; broken pictures are replaced, counted and logged.

    In place of a broken picture comes the next whole one of the same folder, so that positions stay what they are.

    Args:
        folders: what `supir data build` wrote.
        weights: share of each folder in the stream (``[0.9, 0.1]`` mixes faces in); unset: all samples alike.
        seed: of the order.
        window: shards whose samples are mixed at a time.
        max_pixels, without: as in `Photos`.

    Raises:
        OptionError: an argument outside what is allowed, or as `Photos`.
    """

    def __init__(
        self,
        folders: Path | str | Sequence[Path | str],
        weights: Sequence[float] | None = None,
        *,
        seed: int = 0,
        window: int = 4,
        max_pixels: int = MAX_PIXELS,
        without: Collection[int] = (),
    ) -> None:
        if window < 1 or seed < 0:
            raise OptionError(f"window is {window} and seed {seed}; allowed are 1 or more, and 0 or more")
        self.photos = Photos(folders, weights, max_pixels=max_pixels, without=without)
        self._order_options = {"weighted": weights is not None, "seed": seed, "window": window}

    @property
    def num_broken(self) -> int:
        """Broken pictures met so far by this process and its DataLoader workers, repeats counted."""
        return int(self.photos.left_out)

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the order, as JSON has it: to be kept beside a position, for another has another rest."""
        weights = list(self.photos.weights) if self._order_options["weighted"] else None
        numbers = {"num_photos": [len(index) for index in self.photos.indices]}
        return {**self._order_options, **numbers, "weights": weights}

    def __getitem__(self, position: int) -> Sample:
        """The sample at a position, 0 or more.

        Raises:
            ImageReadError: `MAX_TRIES` broken ones in a row.
        """
        for offset in range(MAX_TRIES):
            number = self._order.at(position, offset)
            if number in self.photos.without:
                continue
            try:
                return self.photos.sample(number)
            except ImageError as error:
                self.photos.left_out.add(str(number), error)
        raise ImageReadError(f"{MAX_TRIES} pictures in a row cannot be read, from position {position} of the stream")

    @cached_property
    def _order(self) -> Order:
        return Order(self.photos, **self._order_options)  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_order"}  # it is made anew there


def _shards(photos: Photos, low: int, high: int) -> npt.NDArray[Any]:
    """(first sample, number of samples) of each shard among samples low to high."""
    found = []
    for start, index in zip(photos.starts, photos.indices, strict=False):
        if low <= start < high:
            numbers = np.asarray(index["shard"])
            edges = np.flatnonzero(np.diff(numbers, prepend=numbers[0] + 1, append=numbers[-1] + 1))
            found.append(np.stack([edges[:-1] + start, np.diff(edges)], 1))
    return np.concatenate(found)


def _apportioned(weights: Sequence[float]) -> npt.NDArray[Any]:
    """Whole slots of a cycle for each weight, by largest remainder."""
    exact = np.array(weights) * CYCLE
    slots = np.floor(exact).astype(int)
    for winner in np.argsort(slots - exact, kind="stable")[: CYCLE - slots.sum()]:
        slots[winner] += 1
    if slots.min() < 1:
        raise OptionError(f"a folder's weight is below 1 in {CYCLE} of all; leave the folder out or raise it")
    return slots
