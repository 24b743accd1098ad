"""Work on a Ray cluster: the one file that imports ray.

All machines must see the photographs and the output folder under the same paths (a shared file system).
"""

from __future__ import annotations

import os
import re
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from supir.errors import MissingExtraError, SupirError
from supir.pool.mapping import AHEAD, limit_threads

try:
    import ray
except ImportError as error:
    raise MissingExtraError("ray", "ray", "work on many machines") from error

__all__ = ["LOCAL", "OnRay", "connect", "ray"]

Item = TypeVar("Item")
Result = TypeVar("Result")

LOCAL = "local"
"""Address that starts Ray on this machine, for this run alone."""
_PATIENCE = 10.0
"""Seconds for a cluster to answer at its address."""


def connect(address: str, num_cpus: int | None = None) -> None:
    """Joins a running cluster, or starts Ray on this machine with ``num_cpus`` cores (None: all).

    Raises:
        SupirError: the cluster cannot be reached.
    """
    _check_listens(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        options |= {"num_cpus": num_cpus, "include_dashboard": False}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SupirError(f"{address}: no Ray cluster there: {error}") from error


def _check_listens(address: str) -> None:
    """Whether somebody listens there: Ray itself would ask for ten minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+)\]?:(\d+)", address)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise SupirError(f"{address}: no Ray cluster there: {error}") from error


class OnRay:
    """Tasks of one core each on a Ray cluster; see `supir.pool.mapping.Runner`.

    Args:
        address: of a running cluster (``auto``, ``HOST:6379``, ``ray://HOST:10001``), or `LOCAL`.
        num_workers: cores of a local Ray; None takes all there are. A running cluster has its own number.

    Raises:
        SupirError: the cluster cannot be reached.
    """

    def __init__(self, address: str = LOCAL, num_workers: int | None = None) -> None:
        connect(address, num_workers)
        self._ahead = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """As `Runner.map`; a task whose machine is lost is done again elsewhere.

        Raises:
            SupirError: a task's own error, or that its worker was killed again and again.
        """
        task = ray.remote(num_cpus=1, max_retries=3)(_on_a_worker).remote
        folder = os.getcwd()  # noqa: PTH109
        remaining = iter(items)
        waiting: deque[Any] = deque()
        try:
            while True:
                waiting.extend(task(function, item, folder) for item in islice(remaining, self._ahead - len(waiting)))
                if not waiting:
                    return
                yield ray.get(waiting.popleft())
        except ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, SupirError) else SupirError(f"Ray: {cause or error!r}") from error
        except ray.exceptions.RayError as error:
            raise SupirError(f"Ray: {error}; run the same command again: it goes on where it was") from error
        finally:
            for left in waiting:
                ray.cancel(left)

    def close(self) -> None:
        """Leaves the cluster; ends a local Ray."""
        ray.shutdown()


def _on_a_worker(function: Callable[[Item], Result], item: Item, folder: str) -> Result:
    limit_threads()
    os.chdir(folder)  # so that relative paths mean there what they mean here
    return function(item)
