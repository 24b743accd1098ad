"""The samples of a run by number: each from its own generator, the same in any process and after any interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

Generator = np.random.Generator


def sample_batches(
    draw: Callable[[Generator, int], Any], seed: int, first: int, batch: int, rank: int, world: int, workers: int = 0
) -> Iterator[list[Any]]:
    """Lists of samples of one process, from pass ``first`` on, without end: sample n is drawn from ``(seed, n)`` and n.

    Pass p of process r holds the samples (p * world + r) * batch to that plus batch - 1.
    """
    loader: DataLoader[Any] = DataLoader(
        _Samples(draw, seed),  # type: ignore[arg-type]
        batch_sampler=_Numbers(first, batch, rank, world),
        collate_fn=list,
        num_workers=workers,
        # Not forked: libvips and OpenCV have threads that a forked process would wait for.
        multiprocessing_context="spawn" if workers else None,
        generator=torch.Generator(),
    )
    yield from loader


@dataclass(frozen=True)
class _Samples:
    draw: Callable[[Generator, int], Any]
    seed: int

    def __getitem__(self, number: int) -> Any:
        return self.draw(np.random.default_rng((self.seed, number)), number)


@dataclass(frozen=True)
class _Numbers:
    first: int
    batch: int
    rank: int
    world: int

    def __iter__(self) -> Iterator[list[int]]:
        number = self.first
        while True:
            begin = (number * self.world + self.rank) * self.batch
            yield list(range(begin, begin + self.batch))
            number += 1
