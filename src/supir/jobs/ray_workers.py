"""A batch on a Ray cluster. All machines must see pictures, weights and output folder under the same paths.

ray itself is imported in `supir.pool.on_ray` alone.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from supir.errors import DeviceLostError, OptionError, SupirError, WeightsError
from supir.jobs.job import Job, Outcome
from supir.jobs.model import Model
from supir.jobs.workers import Answer, Event, OnFraction, all_threads
from supir.pool.mapping import limit_threads
from supir.pool.on_ray import LOCAL, connect, ray

if TYPE_CHECKING:
    from supir.jobs.restoring import Restoring

__all__ = [
    "EmptyClusterWarning",
    "OnRay",
    "begin_actor",
    "placed_on_cluster",
    "result_of",
    "share_of_a_gpu",
    "threads_of_each",
]


class EmptyClusterWarning(UserWarning):
    """The cluster lacks now what every worker needs: they wait until a machine that has it joins."""


_WAIT = 1.0  # seconds after which a wait looks up, so that Ctrl-C is heard


class OnRay:
    """Actors, each with its own copy of the weights; see `supir.jobs.workers.Runner`.

    The cores of the cluster are divided among them, at most those of its smallest machine to each. Where the model is
    told to run on GPUs, or is told nothing and the cluster has some, each asks for one, or for its share where there
    are fewer GPUs than actors.

    Args:
        num_workers: how many actors; at least 1.
        address: of a running cluster (``auto``, ``HOST:6379``, ``ray://HOST:10001``), or `LOCAL`, which starts Ray on
            this machine for this run alone.

    Raises:
        SupirError: the cluster cannot be reached.
    """

    def __init__(self, num_workers: int, address: str = LOCAL) -> None:
        self.num_workers = num_workers
        self._num_threads = threads_of_each(num_workers, address)

    def placed(self, model: Model) -> Model:
        """As `Runner.placed`."""
        return placed_on_cluster(model)

    def start(self, model: Model, place: int) -> _Actor:
        """As `Runner.start`."""
        return _Actor(model, place, self._num_threads, share_of_a_gpu(model, self.num_workers))

    def wait(self, workers: Sequence[_Actor], on_fraction: OnFraction[_Actor]) -> list[tuple[_Actor, Answer]]:
        """As `Runner.wait`; how much of a picture is done is not told."""
        by_reference = {worker.reference: worker for worker in workers}
        finished, _ = ray.wait(list(by_reference), timeout=_WAIT)
        return [(by_reference[reference], result_of(reference)) for reference in finished]

    def close(self) -> None:
        """Leaves the cluster; ends a local Ray."""
        ray.shutdown()


class _Actor:
    def __init__(self, model: Model, place: int, num_threads: int, gpus: float) -> None:
        self._handle = begin_actor(_Restorer, model, place, num_threads, os.getcwd(), gpus=gpus)  # noqa: PTH109
        self.reference: Any = self._handle.open.remote()

    def give(self, job: Job) -> None:
        self.reference = self._handle.restore.remote(job)

    def end(self) -> None:
        ray.kill(self._handle)


class _Restorer:
    """What runs on the cluster."""

    def __init__(self, model: Model, place: int, num_threads: int, folder: str) -> None:
        self._opening, self._folder = (model, place, num_threads), folder
        self._restoring: Restoring | None = None

    def open(self) -> Event:
        os.chdir(self._folder)  # so that relative paths mean there what they mean here
        limit_threads(self._opening[2])
        from supir.jobs.restoring import Restoring

        self._restoring = Restoring(*self._opening)
        return Event.READY

    def restore(self, job: Job) -> Outcome:
        assert self._restoring is not None
        try:
            return self._restoring(job)
        except DeviceLostError:
            os._exit(1)  # another actor takes the picture over


def threads_of_each(num_workers: int, address: str) -> int:
    """Join the cluster at ``address``; of its cores each of so many workers gets as many as this.

    One where there are none yet, as on the head of a cluster that grows when there is work, with an
    ``EmptyClusterWarning``.

    Raises:
        OptionError: ``num_workers`` is below 1.
        SupirError: the cluster cannot be reached.
    """
    if num_workers < 1:
        raise OptionError(f"num_workers is {num_workers}; at least 1 is needed")
    connect(address, max(num_workers, all_threads()))
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    if not any(cores):
        _warn_of_none("processor cores", address)
    return max(1, min([sum(cores) // num_workers, *filter(None, cores)]))


def placed_on_cluster(model: Model) -> Model:
    """The model on what the cluster has, where no device is named: this machine may have others, or none.

    Warns:
        of a GPU that is named where the cluster has none now.

    Raises:
        OptionError: networks run on no device of a name.
    """
    from supir.weights.device import kind_of

    for name in model.devices:
        kind_of(name)
    there = ray.cluster_resources()
    if model.devices:
        if not model.on_processor and not there.get("GPU"):
            _warn_of_none("GPU", f"device {', '.join(model.devices)}")
        return model
    gpu = "xpu" if any(name.startswith("accelerator_type:Intel-GPU") for name in there) else "cuda"
    return replace(model, devices=(gpu if there.get("GPU") else "cpu",))


def _warn_of_none(resource: str, asked: str) -> None:
    warnings.warn(
        f"{asked}: the Ray cluster has no {resource} now; workers wait until a machine with some joins it",
        EmptyClusterWarning,
        stacklevel=3,
    )


def share_of_a_gpu(model: Model, num_workers: int) -> float:
    """What each of so many workers asks of a GPU: one, or a part where there are fewer; 0 on processors."""
    if model.on_processor:
        return 0.0
    gpus = int(ray.cluster_resources().get("GPU", 0))
    return 1 / max(1, math.ceil(num_workers / gpus)) if gpus else 1.0


def begin_actor(kind: type, model: Model, place: int, num_threads: int, *more: Any, gpus: float, **options: Any) -> Any:
    """Start a worker of a class that is made from the model, its place, its threads and ``more``; its handle.

    ``gpus`` is the share of a GPU that it asks for, which is number 0 to it.
    """
    remote = ray.remote(num_cpus=num_threads, num_gpus=gpus, max_restarts=0, **options)(kind)
    return remote.remote(model, 0 if gpus else place, num_threads, *more)


def result_of(reference: Any) -> Any:
    """What an actor's call gave, or that the actor died.

    Raises:
        WeightsError: it cannot open the weights.
        SupirError: the call raised one.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        raise cause if isinstance(cause, SupirError) else WeightsError(f"Ray: {cause or error!r}") from error
    except ray.exceptions.RayError:  # the actor, or its machine, is gone
        return Event.DIED
