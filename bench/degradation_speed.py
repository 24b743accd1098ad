"""How many degraded samples a second one core prepares, for every recipe and two sizes of crop.

    OMP_NUM_THREADS=1 python bench/degradation_speed.py              # crops of 128 and 512 pixels

Drawing and applying are both counted, reading the photo and cropping are not. A figure is the median over repeats, each
of many drawings, in seconds of processor time over all threads (OpenCV has one), so that it is that of one core and
what else the machine does hardly matters.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np

from supir.degradation.ops import Picture
from supir.degradation.process import apply
from supir.degradation.recipes import RECIPES, draw

PHOTO = Path(__file__).parents[1] / "examples" / "photo.jpg"


def crop(size: int) -> Picture:
    """The middle of the example photo, repeated by reflection where it is smaller."""
    pixels = cv2.cvtColor(cv2.imread(str(PHOTO)), cv2.COLOR_BGR2RGB)
    missing = [max(0, size - side) for side in pixels.shape[:2]]
    padded = cv2.copyMakeBorder(pixels, 0, missing[0], 0, missing[1], cv2.BORDER_REFLECT_101)
    top, left = ((side - size) // 2 for side in padded.shape[:2])
    return np.ascontiguousarray(padded[top : top + size, left : left + size]).astype(np.float32) / 255


def samples_a_second(name: str, clean: Picture, repeats: int, drawings: int) -> float:
    """The median over ``repeats`` of the same ``drawings``."""
    rates = []
    for _ in range(repeats):
        rng = np.random.default_rng(0)
        start = time.process_time()
        for _ in range(drawings):
            apply(draw(rng, name), clean)
        rates.append(drawings / (time.process_time() - start))
    return statistics.median(rates)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[128, 512])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    crops = {size: crop(size) for size in options.sizes}
    print("| recipe | " + " | ".join(f"{size} px, samples/s" for size in crops) + " |")
    print("|---|" + "--:|" * len(crops))
    for name in RECIPES:
        rates = [
            samples_a_second(name, clean, options.repeats, max(10, 40 * 128 // size)) for size, clean in crops.items()
        ]
        print(f"| {name} | " + " | ".join(f"{rate:.0f}" for rate in rates) + " |", flush=True)


if __name__ == "__main__":
    main()
