"""What a million pictures take with a model: processor seconds and bytes a picture, measured by `supir batch`.

    python bench/million.py --side 512 --price 0.04

Two batches, of one picture and of several, tell the start of a worker from a picture. Processor seconds, not those of
the clock: they hardly depend on what else a machine does, and are what is paid for. On a GPU measure by the clock, with
the last line's arithmetic: docs/million.md.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
MILLION = 1_000_000


def processor_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def batch(folder: Path, count: int, side: int, more: list[str]) -> tuple[float, int]:
    """(processor seconds, bytes of the results) of a batch of so many pictures."""
    photos, out = folder / f"photos{count}", folder / f"out{count}"
    photos.mkdir()
    photo = Image.open(ROOT / "examples" / "photo.jpg").convert("RGB")
    for index in range(count):  # parts of one photograph, none of them the same
        part = photo.crop((index, 0, index + photo.height, photo.height)).resize((side, side), Image.Resampling.LANCZOS)
        part.save(photos / f"{index}.jpg", quality=90)
    before = processor_seconds()
    command = [sys.executable, "-m", "supir.cli", "batch", str(photos), "-o", str(out), "--quiet", *more]
    subprocess.run(command, check=True)
    return processor_seconds() - before, sum(path.stat().st_size for path in out.rglob("*.jpg"))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="pixels of a square photo's side (512)")
    parser.add_argument("--pictures", type=int, default=5, help="of the longer batch (5)")
    parser.add_argument("--price", type=float, default=0.04, help="of a core for an hour, in any currency (0.04)")
    options, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        start, _ = batch(Path(name), 1, options.side, more)
        whole, size = batch(Path(name), options.pictures, options.side, more)
    each = (whole - start) / (options.pictures - 1)
    hours = each * MILLION / 3600
    print(f"photos of {options.side} x {options.side}, supir batch {' '.join(more)}")
    print(f"| processor seconds a picture | {each:.1f} |")
    print(f"| to start a worker, once | {max(0.0, start - each):.1f} |")
    print(f"| a million: core hours | {hours:,.0f} |")
    print(f"| 64 cores for | {hours / 64 / 24:.1f} days |")
    print(f"| at {options.price:g} a core and hour | {hours * options.price:,.0f} |")
    print(f"| results | {size / options.pictures * MILLION / 1e9:,.0f} GB |")


if __name__ == "__main__":
    main()
