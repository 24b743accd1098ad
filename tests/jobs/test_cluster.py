"""`supir batch --runner ray` on a cluster of several machines, here as many raylets, one of which is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.pictures import BAD, FLAGS, album, failures, jobs_of, results, run, times_done
from ray_cluster import kill_machine, ray_cluster
from supir.jobs import Model
from supir.options import RestoreOptions

NAMES = [f"{'abc'[number % 3]}/{number:02}.png" for number in range(24)]


@dataclass(frozen=True, kw_only=True)
class Noting(Model):
    """Notes on which machine the weights are opened, and each picture that is begun; takes its time over each."""

    notes: Path

    def open(self, place: int = 0) -> Any:
        self.note("opened", str(os.getpid()))
        return _NotingPipeline(super().open(place), self)

    def note(self, kind: str, text: str) -> None:
        import ray

        with (self.notes / kind).open("a") as file:
            file.write(f"{ray.get_runtime_context().get_node_id()} {text}\n")

    def noted(self, kind: str) -> list[tuple[str, str]]:
        """(machine, what was noted there)."""
        lines = (self.notes / kind).read_text().splitlines() if (self.notes / kind).exists() else []
        return [(line.split()[0], line.split()[1]) for line in lines]


class _NotingPipeline:
    def __init__(self, pipeline: Any, model: Noting) -> None:
        self._pipeline, self._model, self.identity = pipeline, model, pipeline.identity

    def restore_file(self, source: Path, target: Path, options: RestoreOptions, **more: Any) -> Any:
        self._model.note("begun", str(source))
        time.sleep(0.5)
        return self._pipeline.restore_file(source, target, options, **more)


@pytest.fixture
def cluster() -> Iterator[Any]:
    with ray_cluster() as started:
        yield started


def command(notes: Path, *arguments: object) -> subprocess.Popen[str]:
    """`supir batch` in a process of its own, with a model that takes notes."""
    code = (
        "import sys\nfrom functools import partial\nfrom pathlib import Path\n"
        "from jobs.test_cluster import Noting\nfrom supir.cli import arguments, main\n"
        f"arguments.Model = partial(Noting, notes=Path({str(notes)!r}))\nmain.app(sys.argv[1:])\n"
    )
    line = [sys.executable, "-c", code, "batch", *map(str, arguments), *FLAGS, "--runner", "ray", "--json"]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_machine_that_is_killed_in_the_middle(cluster: Any, folder: Path, tmp_path: Path) -> None:
    source, whole, out = album(tmp_path / "in", NAMES), tmp_path / "whole", tmp_path / "out"
    run(jobs_of(source, whole), whole, Model(folder=folder, devices=("cpu",)))
    killed = cluster.machines[1]
    notes, start = Noting(folder=folder, devices=("cpu",), notes=tmp_path), time.perf_counter()
    process = command(tmp_path, source, "-o", out, "--model", folder, "--workers", 2, "--ray-address", cluster.address)
    while process.poll() is None and (len({node for node, _ in notes.noted("begun")}) < 2 or len(times_done(out)) < 6):
        time.sleep(0.01)
    cluster.add_node(num_cpus=1)  # where the worker will be replaced
    kill_machine(killed)
    done_at_the_kill = len(times_done(out))
    told, said = process.communicate(timeout=120)
    seconds = time.perf_counter() - start
    assert process.returncode == 1, said
    report = json.loads(told)  # and nothing that Ray says
    assert (report["done"], report["skipped"], report["failed"]) == (len(NAMES), 0, len(BAD))
    assert results(out) == results(whole)
    assert times_done(out) == dict.fromkeys(NAMES, 1)
    assert set(failures(out)) == {Path(name).name for name in BAD}
    begun = Counter(path for _, path in notes.noted("begun"))
    # Bad pictures are refused before, but for one that only its header tells to be too large.
    assert {Path(path).relative_to(source).as_posix() for path in begun} == {*NAMES, "huge.png"}
    assert sorted(begun.values())[-2] == 1, "at most the one that was at work on the killed machine is begun again"
    opened = notes.noted("opened")
    assert len(set(opened)) == len({node for node, _ in opened}) == len(opened), "each worker once"
    assert len(opened) in (2, 3), "the one that died is replaced, if there is still work when another has begun"
    machines = Counter(node for node, _ in notes.noted("begun"))
    assert killed.node_id in machines
    print(f"{len(NAMES)} good pictures; killed when {done_at_the_kill} were done; begun by machine"
          f" {sorted(machines.values())}, {max(begun.values()) - 1} of them again; weights opened {len(opened)} times;"
          f" {seconds:.1f} s")  # fmt: skip
