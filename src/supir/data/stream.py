"""Built data sets as an endless stream for training: split by rank and worker, in an order that is arithmetic.

Position p of the stream is a pure function of (folders, weights, seed, p). Rank r of R takes the positions r, r + R,
r + 2 R ..., and DataLoader workers take a batch each in turn: so the order does not depend on their number, and to
resume is to begin at a position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import IterableDataset, get_worker_info

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


class PhotoStream(IterableDataset[Sample]):
    """Samples without end, from a position on; broken pictures are replaced, counted and logged.

    In place of a broken picture comes the next whole one of the same folder, so that positions stay what they are. Give
    `batch_size` the DataLoader's own: then the order is the same for any number of its workers.

    Args:
        folders: what `supir data build` wrote.
        weights: share of each folder in the stream (``[0.9, 0.1]`` mixes faces in); unset: all samples alike.
        seed: of the order.
        rank: this process among `world`, which share the stream.
        world: how many processes there are.
        batch_size: of the DataLoader; 1 where it does not batch.
        window: shards whose samples are mixed at a time.
        epochs: after how many times `len(stream.photos)` positions the stream ends; unset: never.
        max_pixels: as in `Photos`.

    Raises:
        OptionError: an argument outside what is allowed, or as `Photos`.
    """

    def __init__(
        self,
        folders: Path | str | Sequence[Path | str],
        weights: Sequence[float] | None = None,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        batch_size: int = 1,
        window: int = 4,
        epochs: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__()
        if not 0 <= rank < world:
            raise OptionError(f"rank is {rank} of world {world}; allowed is 0 to world - 1")
        for name, value in (("batch_size", batch_size), ("window", window), ("epochs", epochs or 1)):
            if value < 1:
                raise OptionError(f"{name} is {value}; it must be at least 1")
        if seed < 0:
            raise OptionError(f"seed is {seed}; it must not be negative")
        self.photos = Photos(folders, weights, max_pixels=max_pixels)
        self.rank, self.world, self.batch_size = rank, world, batch_size
        self._decisive = {
            "seed": seed,
            "window": window,
            "weights": None if weights is None else list(self.photos.weights),
            "num_photos": [len(index) for index in self.photos.indices],
        }
        self._order_options = {"weighted": weights is not None, "seed": seed, "window": window}
        self._epochs = epochs
        self._begin = 0

    @property
    def num_broken(self) -> int:
        """Broken pictures met so far by this process and its DataLoader workers, repeats counted."""
        return int(self.photos.left_out)

    def start_at(self, num_samples: int) -> None:
        """The next iteration begins after `num_samples`, counted over all ranks together.

        Raises:
            OptionError: negative, or not a multiple of `world`: then the ranks have not taken equally many.
        """
        if num_samples < 0 or num_samples % self.world:
            raise OptionError(f"num_samples is {num_samples}; a multiple of world ({self.world}), 0 or more, is needed")
        self._begin = num_samples // self.world

    def state_dict(self, num_samples: int) -> dict[str, Any]:
        """What a checkpoint keeps to go on after `num_samples` over all ranks; whoever trains counts them, since
        workers read ahead.
        """
        return {"num_samples": num_samples, **self._decisive}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken, with as many ranks and workers as there are now.

        Raises:
            OptionError: seed, weights, window or data set is another: the rest of the order would not be the rest.
        """
        for name, value in self._decisive.items():
            if state.get(name) != value:
                before = state.get(name)
                raise OptionError(f"{name} of the stream is {value}, of the checkpoint {before}; they must agree")
        self.start_at(int(state["num_samples"]))

    def at(self, position: int) -> Sample:
        """The sample at a position of the whole stream, whatever this rank's share is.

        Raises:
            ImageReadError: `MAX_TRIES` broken ones in a row.
        """
        for offset in range(MAX_TRIES):
            number = self._order.at(position, offset)
            try:
                return self.photos.sample(number)
            except ImageError as error:
                self.photos.left_out.add(str(number), error)
        raise ImageReadError(f"{MAX_TRIES} pictures in a row cannot be read, from position {position} of the stream")

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        end = None if self._epochs is None else self._epochs * len(self.photos)
        batch = number
        while True:
            for place in range(self._begin + batch * self.batch_size, self._begin + (batch + 1) * self.batch_size):
                position = place * self.world + self.rank
                if end is not None and position >= end:
                    return
                yield self.at(position)
            batch += count

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
