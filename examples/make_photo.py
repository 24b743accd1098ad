"""Make examples/photo.jpg: a good photograph, made small, blurred, noisy and blocky, as old digital pictures are.

    python examples/make_photo.py

The original is "Chelsea", a photograph by Stefan van der Walt, dedicated to the public domain (CC0), which comes with
scikit-image. It was not among the photographs that the bundled model was trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from skimage import data

SHRINK = 2
BLUR = 0.8
NOISE = 4.0
JPEG_QUALITY = 60


def main() -> None:
    """Degrade the photograph and write it beside this file."""
    original = Image.fromarray(data.chelsea())
    size = (original.width // SHRINK, original.height // SHRINK)
    small = original.filter(ImageFilter.GaussianBlur(BLUR * SHRINK)).resize(size, Image.Resampling.LANCZOS)
    noise = np.random.default_rng(0).normal(0, NOISE, (small.height, small.width, 3))
    noisy = np.clip(np.asarray(small) + noise, 0, 255).round().astype(np.uint8)
    path = Path(__file__).with_name("photo.jpg")
    Image.fromarray(noisy).save(path, quality=JPEG_QUALITY)
    print(f"wrote {path}, {small.width} x {small.height}")


if __name__ == "__main__":
    main()
