"""A Ray cluster on this machine: each of its machines is a raylet of its own, which can be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """A machine that works on nothing, and two that have room for one worker each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        cluster.machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def kill_machine(machine: Any) -> None:
    """kill -9 of its raylet and of all that it started; workers alone live on for many seconds, and end their work."""
    raylet = psutil.Process(machine.all_processes["raylet"][0].process.pid)
    for process in (raylet, *raylet.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def kill_head(cluster: Any) -> None:
    """kill -9 of the process that the whole cluster is known by."""
    os.kill(cluster.head_node.all_processes["gcs_server"][0].process.pid, signal.SIGKILL)
