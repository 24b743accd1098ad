"""Peak memory of restoring pictures of growing size with the bundled model, each in a process of its own.

    python bench/memory_by_size.py             # outputs of 1, 4, 16 and 64 megapixels

Prints, for each size, the peak resident memory and the processor seconds (which other work on the machine hardly
changes) of ``supir restore --steps 1``, start-up included, and both as ratios to those of 4 megapixels, the seconds a
megapixel. With ``--check`` it fails where the last size needs more than 1.3 of the memory or 1.15 of the seconds a
megapixel.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from supir import Picture, write

MOST_MEMORY, MOST_SECONDS = 1.3, 1.15


def measure(megapixels: float, folder: Path) -> tuple[float, float]:
    """Processor seconds and peak bytes of one restoration to an output of this many megapixels."""
    side = round((megapixels * 1e6) ** 0.5 / 2)
    photo = folder / f"{megapixels:g}.png"
    coarse = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    write(Picture(pixels=torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")[0]), photo)
    command = ["-c", "from supir.cli.main import main; main()", "restore", str(photo), "-o", str(folder / "out.png")]
    child = subprocess.Popen([sys.executable, *command, "--scale", "2", "--steps", "1", "--overwrite", "--quiet"])
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"supir restore failed on {megapixels:g} megapixels")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("megapixels", nargs="*", type=float, default=[1, 4, 16, 64])
    parser.add_argument("--base", type=float, default=4, help="megapixels that the others are compared with")
    parser.add_argument("--check", action="store_true", help="fail where the last size needs too much")
    options = parser.parse_args()
    found: dict[float, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in options.megapixels:
            found[size] = measure(size, Path(folder))
            print(line(size, *found[size], *found.get(options.base, found[size]), options.base), flush=True)
    last = max(found)
    (seconds, peak), (base_seconds, base_peak) = found[last], found[options.base]
    slower, larger = seconds / last / (base_seconds / options.base), peak / base_peak
    if options.check and (larger > MOST_MEMORY or slower > MOST_SECONDS):
        raise SystemExit(f"{last:g} megapixels need too much: at most {MOST_MEMORY} and {MOST_SECONDS} are allowed")


def line(size: float, seconds: float, peak: float, base_seconds: float, base_peak: float, base: float) -> str:
    """What is printed of a size."""
    rate, base_rate = seconds / size, base_seconds / base
    return (
        f"{size:6g} megapixels: {seconds:6.1f} s, {rate:5.2f} s/MP ({rate / base_rate:.2f}),"
        f" peak {peak / 1e9:.2f} GB ({peak / base_peak:.2f})"
    )


if __name__ == "__main__":
    main()
