"""Workers on a Ray cluster: the one file that imports ray.

A worker is an actor. It does its tasks in a thread of its own, and what it has to say is fetched message by message: so
its reports and answers come in order, at once, and through Ray's client as well.
"""

from __future__ import annotations

import math
import os
import queue
import re
import socket
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from supir.errors import MissingExtraError, SupirError
from supir.pool.processes import all_threads, limit_threads
from supir.pool.workers import (
    Answer,
    EmptyClusterWarning,
    Event,
    Failed,
    OnReport,
    Opening,
    Stopped,
    Told,
    answer_to,
    check_count,
)

try:
    import ray
except ImportError as error:
    raise MissingExtraError("ray", "ray", "work on many machines") from error

LOCAL = "local"
"""Address that starts Ray on this machine, for this run alone."""
_PATIENCE = 10.0
"""Seconds for a cluster to answer at its address."""
_WAIT = 1.0
"""Seconds after which a wait looks up, so that Ctrl-C is heard."""


class OnRay:
    """Actors; see `supir.pool.workers.Runner`.

    Those whose `Opening` is to be on a GPU ask for one, or for their share where there are fewer GPUs than actors.

    Args:
        num_workers: how many; None: as many as the cluster has room for.
        address: of a running cluster (``auto``, ``HOST:6379``, ``ray://HOST:10001``), or `LOCAL`.
        num_threads: of each, and the cores that it asks for; None divides the cluster's cores, at most those of its
            smallest machine to each.
        shared_folders: all machines see the same files under the same paths, relative ones too.

    Raises:
        OptionError: ``num_workers`` is below 1.
        SupirError: the cluster cannot be reached.
    """

    def __init__(
        self,
        num_workers: int | None,
        address: str = LOCAL,
        *,
        num_threads: int | None = None,
        shared_folders: bool = True,
    ) -> None:
        _connect(address, None if num_workers is None else max(check_count(num_workers), all_threads()))
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        if not any(cores):  # as on the head of a cluster that grows when there is work
            warnings.warn(
                f"{address}: the Ray cluster has no processor cores now; workers wait until a machine with some joins"
                " it",
                EmptyClusterWarning,
                stacklevel=2,
            )
        self.num_workers = num_workers or max(1, sum(cores) // (num_threads or 1))
        share = min([sum(cores) // self.num_workers, *filter(None, cores)])
        self._num_threads = num_threads or max(1, share)
        self.shared_folders = shared_folders

    @property
    def device(self) -> str:
        """As `Runner.device`; this machine may have others, or none."""
        there = ray.cluster_resources()
        gpu = "xpu" if any(name.startswith("accelerator_type:Intel-GPU") for name in there) else "cuda"
        return gpu if there.get("GPU") else "cpu"

    def start(self, opening: Opening[Any, Any], place: int) -> RayWorker:
        """As `Runner.start`; the worker begins when the cluster has room for it."""
        gpus = share_of_a_gpu(self.num_workers) if opening.on_gpu else 0.0
        options = {"num_cpus": self._num_threads, "num_gpus": gpus, "max_restarts": 0, "max_concurrency": 2}
        folder = os.getcwd() if self.shared_folders else None  # noqa: PTH109
        place = 0 if gpus else place  # the GPU that it gets is number 0 to it
        return RayWorker(ray.remote(**options)(_Actor).remote(self._num_threads), opening, place, folder)

    def wait(self, workers: Sequence[RayWorker], on_report: OnReport[RayWorker]) -> list[tuple[RayWorker, Answer]]:
        """As `Runner.wait`."""
        by_reference = {worker.reference: worker for worker in workers}
        finished, _ = ray.wait(list(by_reference), timeout=_WAIT)
        answers: list[tuple[RayWorker, Answer]] = []
        for worker in map(by_reference.__getitem__, finished):
            said = worker.said()
            if isinstance(said, Told):
                on_report(worker, said.what)
            else:
                answers.append((worker, said))
        return answers

    def close(self) -> None:
        """Leaves the cluster; ends a local Ray."""
        ray.shutdown()


class RayWorker:
    """A worker on some machine of the cluster."""

    def __init__(self, handle: Any, opening: Opening[Any, Any], place: int, folder: str | None) -> None:
        self._handle = handle
        self._number = 0
        self.reference = handle.begin.remote(opening, place, folder)

    def give(self, task: Any) -> None:
        """As `Worker.give`."""
        self._number += 1
        self.reference = self._handle.work.remote(task, self._number)

    def stop(self) -> None:
        """Ask it to leave the task it has when it next reports; it answers, and is ready again."""
        self._handle.stop.remote(self._number)

    def kill(self) -> None:
        """Let it die at once: whoever waits for it hears of that."""
        ray.kill(self._handle)

    end = kill

    def said(self) -> Answer | Told:
        """What it has said; then it is listened to again, unless that was the end of its task."""
        try:
            said: Answer | Told = ray.get(self.reference)
        except ray.exceptions.RayTaskError as error:  # it did not understand what it was given
            cause = getattr(error, "cause", None)
            return Failed(cause if isinstance(cause, SupirError) else SupirError(f"Ray: {cause or error!r}"))
        except ray.exceptions.RayError:  # the actor, or its machine, is gone
            return Event.DIED
        if isinstance(said, Told):
            self.reference = self._handle.listen.remote()
        return said


class _Actor:
    """What runs on the cluster."""

    def __init__(self, num_threads: int) -> None:
        limit_threads(num_threads)
        self._said: queue.SimpleQueue[Answer | Told] = queue.SimpleQueue()
        self._work: Any = None
        self._stopped = 0

    def begin(self, opening: Opening[Any, Any], place: int, folder: str | None) -> Answer | Told:
        def begin() -> None:
            if folder is not None:
                os.chdir(folder)  # so that relative paths mean there what they mean here
            self._work = opening(place)

        return self._first(begin)

    def work(self, task: Any, number: int) -> Answer | Told:
        def report(what: Any) -> None:
            self._said.put(Told(what))
            if self._stopped == number:
                raise Stopped("stopped on request")

        return self._first(lambda: self._work(task, report))

    def listen(self) -> Answer | Told:
        return self._said.get()

    def stop(self, number: int) -> None:
        self._stopped = number

    def _first(self, call: Callable[[], Any]) -> Answer | Told:
        """Begin a call in a thread; the first that it says."""

        def run() -> None:
            try:
                self._said.put(answer_to(call))
            except BaseException:  # the device is lost: another actor takes the task over
                os._exit(1)

        threading.Thread(target=run, daemon=True).start()
        return self.listen()


def share_of_a_gpu(num_workers: int) -> float:
    """What each of so many workers asks of a GPU: one, or a part where there are fewer."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    return 1 / max(1, math.ceil(num_workers / gpus)) if gpus else 1.0


def _connect(address: str, num_cpus: int | None) -> None:
    """Joins a running cluster, or starts Ray on this machine with ``num_cpus`` cores (None: all)."""
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
