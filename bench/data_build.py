"""Pictures a second of each step of `supir data build`, over workers, and what 20 million pictures would take.

    python bench/data_build.py                      # photographs made for it: 8 of 12 megapixels, 32 of 1 megapixel
    python bench/data_build.py FOLDER --price 0.04  # your own photographs, dollars per core hour

Prints markdown tables. Measured on this machine: one core for each step, whole builds over workers (processes and Ray),
the search for duplicates and the memory of the list of pictures at growing numbers. The table at the end is arithmetic
on these, with what it assumes said above it.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from supir.data import quality
from supir.data.build import build
from supir.data.filtering import Measured, judge, measure
from supir.data.options import BuildOptions, QualityRules
from supir.data.photos import Photos
from supir.data.pixels import encode, load, reduced
from supir.data.shards import ShardJob, write_shard
from supir.data.sources import Source, find_photographs
from supir.pool import Processes, Runner, Serial
from supir.pool.processes import limit_threads

# Everything is kept, so that a picture costs what a kept one costs.
OPEN = QualityRules(min_side=None, max_aspect=None, min_sharpness=None, max_flat_share=None, max_blockiness=None,
                    min_jpeg_quality=None, duplicate_distance=0)  # fmt: skip
PAPER = 20_000_000
REPEATS = 2
"""Whole builds of each kind; the fastest counts."""


def make_photographs(folder: Path, num_large: int, num_small: int) -> None:
    """JPEG files of quality 92 with shapes and texture: their sizes in bytes are those of photographs."""
    for number in range(num_large + num_small):
        width, height = (4000, 3000) if number < num_large else (1200, 900)
        random = np.random.default_rng(number)
        shapes = Image.fromarray(random.integers(20, 235, (9, 12, 3), dtype=np.uint8)).resize((width, height), 3)
        grain = random.normal(0, 4, (height, width, 1))
        pixels = np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05}.jpg", quality=92)


def seconds(work: Callable[[], Any]) -> float:
    """Of one call."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def each_step(sources: Sequence[Source], folder: Path) -> dict[str, float]:
    """Processor seconds a picture of each step: what else the machine does costs little here."""
    options = BuildOptions(rules=OPEN)
    took: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = work()
        took.setdefault(name, []).append(time.process_time() - start)
        return result

    measured = []
    for source in sources:
        data = timed("bytes and sha256", lambda source=source: _hashed(source))
        pixels = timed("read to sRGB pixels", lambda s=source, d=data: load(s.path, d, 10**9)).pixels
        levels = timed("grey levels", lambda p=pixels: quality.grey(p))
        timed("judge: sharpness", lambda g=levels: quality.sharpness(g))
        timed("judge: flat share", lambda g=levels: quality.flat_share(g))
        timed("judge: blockiness", lambda g=levels: quality.blockiness(g))
        timed("judge: difference hash", lambda p=pixels: quality.difference_hash(p))
        timed("encode PNG tiles of half size", lambda p=pixels: [encode(tile) for tile in _tiles(reduced(p, 2))])
        measured.append(measure(source, options))
    job = ShardJob(number=0, folder=str(folder), pictures=tuple(measured), options=options, captioner=None)
    start = time.process_time()
    write_shard(job)
    took["write, original bytes"] = [(time.process_time() - start) / len(sources)]
    return {name: statistics.fmean(values) for name, values in took.items()}


def _hashed(source: Source) -> bytes:
    data = Path(source.path).read_bytes()
    hashlib.sha256(data).digest()
    return data


def _tiles(pixels: Any) -> list[Any]:
    return [
        np.ascontiguousarray(pixels[top : top + 512, left : left + 512])
        for top in range(0, pixels.shape[0] - 511, 512)
        for left in range(0, pixels.shape[1] - 511, 512)
    ]


def whole_builds(photographs: Path, workers: int, with_ray: bool) -> dict[str, float]:
    """Pictures a second of finding, measuring, judging and writing, without the start of the workers and the report."""
    kinds: dict[str, Callable[[], Runner[Any]]] = {"this process": Serial}
    for count in range(1, workers + 1):
        kinds[f"{count} processes"] = lambda count=count: Processes(count, num_threads=1)
    if with_ray:
        from supir.pool.on_ray import OnRay

        for count in range(1, workers + 1):
            kinds[f"Ray, {count} cores"] = lambda count=count: OnRay(count, num_threads=1)
    options = BuildOptions(rules=OPEN, photos_per_shard=16)
    speeds = {}
    for name, start in kinds.items():
        runner = start()
        try:
            speeds[name] = max(_build_speed(photographs, options, runner) for _ in range(REPEATS))
        finally:
            runner.close()
    return speeds


def _build_speed(photographs: Path, options: BuildOptions, runner: Runner[Any]) -> float:
    begun: list[tuple[int, float]] = []
    written: list[float] = []

    def on_progress(step: str, done: int, total: int) -> None:
        if step == "measure" and done and not begun:
            begun.append((done, time.perf_counter()))  # workers have begun
        if step == "write" and done == total:
            written.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        summary = build([photographs], out, options=options, runner=runner, on_progress=on_progress)
    [(done, begin)] = begun
    return (summary.num_pictures - done) / (written[-1] - begin)


def judging_at(count: int) -> tuple[float, float]:
    """Seconds and bytes a picture of the verdicts over `count` pictures of random hashes, in the first process."""
    random = np.random.default_rng(0)
    hashes = [f"{high:016x}{low:016x}" for high, low in random.integers(0, 2**63, (count, 2)).tolist()]
    before = psutil.Process().memory_info().rss
    pictures = [
        Measured(source=f"/photographs/{number:09}.jpg", sha256="0" * 64, width=4000, height=3000, sharpness=100,
                 kind="JPEG", plain=True, hash=value)
        for number, value in enumerate(hashes)
    ]  # fmt: skip
    start = time.perf_counter()
    for number, _ in enumerate(judge(pictures, BuildOptions())):
        if number == count - 1:  # while all is still held
            after = psutil.Process().memory_info().rss
    return (time.perf_counter() - start) / count, (after - before) / count


def loading(photographs: Path) -> float:
    """Samples a second of random access to whole photographs, one process."""
    with tempfile.TemporaryDirectory() as out:
        build([photographs], out, options=BuildOptions(rules=OPEN))
        photos = Photos(out)
        order = np.random.default_rng(0).permutation(len(photos))[:40]
        return len(order) / seconds(lambda: [photos.sample(int(number)) for number in order])


def extrapolate(arguments: argparse.Namespace, per_picture: dict[str, float], scaling: float, mean_bytes: float,
                verdict: tuple[float, float]) -> list[tuple[str, str]]:  # fmt: skip
    """Rows of the table on paper."""
    cpu = per_picture["whole"] / scaling
    core_hours = PAPER * cpu / 3600
    nodes = core_hours / arguments.cores / arguments.hours
    caption_hours = PAPER * arguments.caption_seconds / 3600
    money = core_hours * arguments.price + caption_hours * arguments.gpu_price
    return [
        ("seconds of a core for each picture", f"{cpu:.3f}"),
        ("core hours", f"{core_hours:,.0f}"),
        (f"nodes of {arguments.cores} cores, to be done in {arguments.hours:g} hours", f"{max(1, nodes):,.1f}"),
        ("disk for the shards (original bytes)", f"{PAPER * mean_bytes / 1e12:,.1f} TB"),
        ("disk for the index", f"{PAPER * 40 / 1e9:,.1f} GB"),
        ("verdicts, one core of the first node", f"{PAPER * verdict[0] / 3600:,.1f} hours"),
        ("memory of the first node", f"{PAPER * verdict[1] / 1e9:,.0f} GB"),
        (f"reads, twice each, within {arguments.hours:g} hours",
         f"{2 * PAPER * mean_bytes / arguments.hours / 3600 / 1e9:,.2f} GB/s"),
        (f"captions, at {arguments.caption_seconds:g} s of a GPU (assumed, not measured)",
         f"{caption_hours:,.0f} GPU hours"),
        (f"cost = core hours x {arguments.price:g} + GPU hours x {arguments.gpu_price:g}", f"{money:,.0f} dollars"),
    ]  # fmt: skip


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Prints markdown."""
    print(f"\n| {' | '.join(head)} |\n|{'---|' + '--:|' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="?", type=Path, help="folder; unset: photographs are made")
    parser.add_argument("--large", type=int, default=8, help="made photographs of 12 megapixels")
    parser.add_argument("--small", type=int, default=32, help="made photographs of 1 megapixel")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--verdicts", type=int, default=300_000, help="pictures of the measured verdicts")
    parser.add_argument("--cores", type=int, default=64, help="of a node on paper")
    parser.add_argument("--hours", type=float, default=24, help="in which it is to be done, on paper")
    parser.add_argument("--price", type=float, default=0.04, help="dollars a core hour, assumed")
    parser.add_argument("--gpu-price", type=float, default=2.0, help="dollars a GPU hour, assumed")
    parser.add_argument("--caption-seconds", type=float, default=0.0, help="GPU seconds a caption; 0: captions exist")
    arguments = parser.parse_args()
    limit_threads()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.photographs or Path(scratch) / "photographs"
        if arguments.photographs is None:
            folder.mkdir()
            make_photographs(folder, arguments.large, arguments.small)
        sources = find_photographs([folder])
        report(arguments, folder, sources, Path(scratch))


def report(arguments: argparse.Namespace, folder: Path, sources: list[Source], scratch: Path) -> None:
    """Measures, and prints every table."""
    sizes = [Image.open(io.BytesIO(Path(source.path).read_bytes())).size for source in sources]
    megapixels = statistics.fmean(width * height for width, height in sizes) / 1e6
    mean_bytes = statistics.fmean(source.size for source in sources)
    print(f"{len(sources)} pictures, {megapixels:.2f} megapixels and {mean_bytes / 1e6:.2f} MB each on average")
    verdict = judging_at(arguments.verdicts)
    steps = each_step(sources, scratch)
    rows = [(name, f"{1000 * took:.1f}", f"{1 / took:,.1f}") for name, took in steps.items()]
    table(("step", "processor ms a picture", "pictures/s of a core"), rows)
    speeds = whole_builds(folder, arguments.workers, not arguments.no_ray)
    base = speeds["1 processes"]
    rows = [(name, f"{speed:.2f}", f"{speed / base:.2f}") for name, speed in speeds.items()]
    print(f"\nload average {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores, this command included")
    table(("whole build", "pictures/s", "over 1 process"), rows)
    print(f"\nloading whole photographs at random, one process: {loading(folder):.1f} samples/s")
    print(
        f"verdicts, at {arguments.verdicts:,} pictures: {1 / verdict[0]:,.0f} pictures/s, {verdict[1]:.0f} bytes each"
    )
    most = f"{arguments.workers} processes"
    scaling = speeds[most] / base / arguments.workers
    print(
        f"\nOn paper, {PAPER:,} pictures like these: the processor time above, over {scaling:.2f}, what is left of a"
        f" lone process's speed a core with {arguments.workers} processes here. Assumed: it is so on every node;"
        " storage keeps up; verdicts and memory grow in proportion. Nothing of this was run."
    )
    steps.pop("encode PNG tiles of half size")  # not part of a build that stores pictures whole
    per_picture = {"whole": sum(steps.values())}
    table(("20 million pictures", ""), extrapolate(arguments, per_picture, scaling, mean_bytes, verdict))


if __name__ == "__main__":
    sys.exit(main())
