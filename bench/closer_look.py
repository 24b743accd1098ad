"""What the page makes of a photo that is looked at closely: how long the largest part's clean preview takes.

    python bench/closer_look.py [--threads 2] [--rounds 3]

A photo of 6000 x 4000 pixels, made of the example, is read from a JPEG; of it 640 x 640 pixels of a result of its own
size are made by the bundled model and written, from file to file as a worker does it. Printed are the seconds that
pass, and the processor's seconds divided by the threads: about those of a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from supir import image
from supir.jobs.model import Model
from supir.options.crop import Crop

PHOTO = Path(__file__).parents[1] / "examples" / "photo.jpg"
SIZE, CROP = (4000, 6000), Crop(2560, 1536, 640, 640)


def main() -> None:
    """Round after round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = Model()
    _ = model.identity  # a worker knows it before its first job
    pipeline = model.open_previewer()
    options = pipeline.options(scale=1.0)
    with tempfile.TemporaryDirectory() as folder:
        photo = image.read(PHOTO)
        large = Path(folder) / "photo.jpg"
        image.write(photo.with_pixels(image.resize(photo.pixels, *SIZE)), large)
        for _ in range(asked.rounds):
            wall, processor = time.perf_counter(), time.process_time()
            pipeline.preview_crop(large, Path(folder) / "part.png", CROP, options)
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            print(
                f"{wall:.1f} s, of the processor {processor / asked.threads:.1f} s on {asked.threads} threads",
                flush=True,
            )


if __name__ == "__main__":
    main()
