"""Killed at any moment and run again, by one process, by several, on Ray: the same bytes, and nothing done twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from data.photographs import OPTIONS, album, contents
from supir.data.build import build
from supir.pool import Processes

SUICIDAL = """
import os, signal, sys
sys.path[:0] = sys.argv[5:]
from data.photographs import OPTIONS
from supir.data.build import build
from supir.pool import Processes

step, count, folder, out = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Captioner:
    name = "counter"
    calls = 0
    def __call__(self, image):
        Captioner.calls += 1
        if step == "caption" and Captioner.calls == count:
            die()
        return f"{image.width} pixels wide"

def on_progress(now, done, total):
    if now == step and done >= count:
        die()

summary = build([folder], out, options=OPTIONS, captioner=Captioner(), on_progress=on_progress)
print(summary.num_measured, summary.num_written)
"""


def run(step: str, count: int, folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(Path(__file__).parents[1])]
    command = [sys.executable, "-c", SUICIDAL, step, str(count), str(folder), str(out), *paths]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty photographs without captions: three chunks to measure, four shards to write."""
    folder = album(tmp_path_factory.mktemp("photographs"), 20)
    for path in folder.rglob("*.txt"):
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run that nothing interrupts writes."""
    out = tmp_path_factory.mktemp("finished") / "set"
    done = run("never", 0, folder, out)
    assert done.returncode == 0, done.stderr
    return contents(out)


@pytest.mark.slow
def test_killed_again_and_again(folder: Path, finished: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "set"
    # While measuring; in the middle of the second shard, with a temporary file on disk; between two shards.
    for step, count in (("measure", 8), ("caption", 8), ("write", 3)):
        assert run(step, count, folder, out).returncode == -signal.SIGKILL
        assert not (out / "index.npy").exists()
        if step == "caption":
            assert len(list(out.glob(".*.tmp"))) == 1
            assert [path.name for path in out.glob("*.tar")] == ["shard-000000.tar"]
    done = run("never", 0, folder, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "1"]  # all was measured, three of four shards written
    assert contents(out) == finished


def test_a_torn_journal_and_damaged_remains(folder: Path, tmp_path: Path) -> None:
    out, fresh = tmp_path / "a" / "set", tmp_path / "b" / "set"
    build([folder], fresh, options=OPTIONS)
    build([folder], out, options=OPTIONS)
    [journal] = (out / ".build").glob("measured-*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:15]) + lines[15][:40])
    (out / ".build" / "shard-000001.json").write_text("{")
    with (out / "shard-000002.tar").open("r+b") as stream:
        stream.truncate(1000)
    (out / "index.npy").unlink()
    summary = build([folder], out, options=OPTIONS)
    assert (summary.num_measured, summary.num_written) == (5, 2)
    assert contents(out) == contents(fresh)
    assert build([folder], out, options=OPTIONS).num_measured == 0


def test_processes_come_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    build([folder], tmp_path / "a" / "set", options=OPTIONS)
    runner = Processes(2)
    try:
        build([folder], tmp_path / "b" / "set", options=OPTIONS, runner=runner)
    finally:
        runner.close()
    assert contents(tmp_path / "a" / "set") == contents(tmp_path / "b" / "set")


@pytest.mark.slow
def test_ray_comes_to_the_same_bytes_and_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    from supir.pool.on_ray import OnRay

    before = set(psutil.Process().children(recursive=True))
    runner = OnRay(2, num_threads=1)
    try:
        monkeypatch.chdir(folder.parent)  # relative paths, of a folder that the workers did not start in
        build([folder.name], "ray set", options=OPTIONS, runner=runner)
        started = set(psutil.Process().children(recursive=True)) - before
    finally:
        runner.close()
    assert len(started) > 2
    build([folder.name], tmp_path / "a" / "ray set", options=OPTIONS)
    assert contents(tmp_path / "a" / "ray set") == contents(Path("ray set"))
    _, left = psutil.wait_procs(started, timeout=60)
    assert [each for each in left if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []
