"""Peak memory of restoring pictures of growing size with the bundled model, each in a process of its own.

    python bench/memory_by_size.py             # outputs of 1, 4 and 16 megapixels

Prints, for each size, seconds and the peak resident memory of ``supir restore --steps 1``; then the growth between the
last two (by default both larger than a tile), in multiples of what one float32 picture of three channels takes: input,
preview and result at the output's size are three.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from supir import Picture, write

BYTES_PER_MEGAPIXEL = 3 * 4 * 1e6


def measure(megapixels: float, folder: Path) -> tuple[float, float]:
    """Seconds and peak bytes of one restoration to an output of this many megapixels."""
    side = round((megapixels * 1e6) ** 0.5 / 2)
    photo = folder / f"{megapixels:g}.png"
    coarse = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    write(Picture(pixels=torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")[0]), photo)
    command = ["-c", "from supir.apps.cli import main; main()", "restore", str(photo), "-o", str(folder / "out.png")]
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, *command, "--scale", "2", "--steps", "1", "--overwrite", "--quiet"])
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"supir restore failed on {megapixels:g} megapixels")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * unit


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("megapixels", nargs="*", type=float, default=[1, 4, 16])
    sizes = parser.parse_args().megapixels
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            seconds, peak = measure(size, Path(folder))
            peaks.append(peak)
            print(f"{size:6g} megapixels: {seconds:6.1f} s, peak {peak / 1e9:.2f} GB")
    if len(sizes) > 1:
        growth = (peaks[-1] - peaks[-2]) / (sizes[-1] - sizes[-2]) / BYTES_PER_MEGAPIXEL
        print(f"growth: {growth:.1f} float32 pictures of the output's size")


if __name__ == "__main__":
    main()
