"""The same function over many items: here, in processes of this machine, or on Ray (`supir.pool.on_ray`).

A runner gives the results in the order of the items, so nothing depends on who did what when.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from typing import Protocol, TypeVar

from supir.errors import OptionError, SupirError

__all__ = ["Processes", "Runner", "Serial", "begin_worker", "limit_threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4
"""Items handed out per worker before their results are taken: none waits, and memory stays bounded."""


class Runner(Protocol):
    """Runs a picklable function over items, lazily, and gives the results in their order."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items; the first error of any is raised."""

    def close(self) -> None:
        """Ends what the runner began; nothing of it survives."""


class Serial:
    """One item after the other, in this process."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """As `Runner.map`."""
        return map(function, items)

    def close(self) -> None:
        """Nothing to end."""


class Processes:
    """Worker processes of this machine, each of one thread. They end when this process ends, however it ends."""

    def __init__(self, num_workers: int) -> None:
        if num_workers < 1:
            raise OptionError(f"num_workers is {num_workers}; at least 1 is needed")
        self._ahead = AHEAD * num_workers
        # Spawned, not forked: this process may have threads, and a forked copy of a held lock is held for ever.
        self._pool = ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=begin_worker)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """As `Runner.map`.

        Raises:
            SupirError: a worker was killed, most often for lack of memory.
        """
        waiting: deque[Future[Result]] = deque()
        remaining = iter(items)
        try:
            while True:
                waiting.extend(
                    self._pool.submit(function, item) for item in islice(remaining, self._ahead - len(waiting))
                )
                if not waiting:
                    return
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise SupirError(
                "a worker process was killed, most often for lack of memory; run the same command again with fewer"
                " --workers: it goes on where it was"
            ) from error
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Waits for the items in work, drops the others, ends the processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def begin_worker(num_threads: int = 1) -> None:
    """In a new process: this many threads, deaf to Ctrl-C, and ended when the process that began it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the first one decides
    limit_threads(num_threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def limit_threads(num_threads: int = 1) -> None:
    """So many threads for each library, in a worker: the workers share the cores. Before those are imported."""
    for name in ("VIPS_CONCURRENCY", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(num_threads)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)  # a killed parent cannot ask; a worker that waits for its next item would wait for ever
