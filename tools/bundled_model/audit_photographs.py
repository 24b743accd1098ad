"""The photographs that the bundled audit is calibrated with: none that the model was trained on.

Those of ``photographs.json`` that are held out, and what was chosen by eye from other packages of Debian, from
scikit-image and from scikit-learn's wheel. Of the pictures themselves nothing goes into the calibration.

    python tools/bundled_model/audit_photographs.py --packages DEBS --out PHOTOS [--scikit-learn WHEEL]
    supir audit calibrate PHOTOS --refit --draws 2 -o src/supir/assets/audit.safetensors  # map and promises
    supir audit calibrate OTHERS --draws 2 -o src/supir/assets/audit.safetensors          # promises for the map that is

``OTHERS`` are those that the map was not fitted to: all but the first of each three by name, ``x_china`` among them.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import skimage.data
from photographs import photographs, read_photographs

CHOSEN = {
    "zoph": ("backgrounds/fir.jpg", "backgrounds/flower.jpg"),
    "palapeli-data": ("palapeli/collection/*.jpg",),
    "libjs-jquery-backstretch": tuple(
        f"examples/{name}.jpg" for name in ("sample1_1920", "sample2_1920", "dome", "pot-holder", "coffee")
    ),
    "forensics-samples-files": ("original-files/*/IMG*.jpg", "original-files/*/IMG*.JPG"),
    "kphotoalbum": ("kphotoalbum/demo/*.jpg",),
    "visp-images-data": ("Solvay/Solvay_conference_1927_Version2_2126x1463.png", "Klimt/Klimt.jpeg"),
}
"""Patterns of files by package."""
OF_SKIMAGE = ("coffee.png", "astronaut.png", "chelsea.png", "camera.png", "rocket.jpg", "motorcycle_left.png")
OF_SKLEARN = ("china.jpg", "flower.jpg")
HALVED, THIRDED = 1400, 2400
"""Shorter sides from which on a photograph is halved, or made three times smaller: they are soft at their own size."""
SMALLEST = 256
Pixels = npt.NDArray[np.uint8]


def held_out(packages: Path) -> Iterator[tuple[str, Pixels]]:
    """Name and pixels of those that training has left out."""
    chosen = [photo for photo in photographs() if photo.split == "heldout"]
    for photo, pixels in read_photographs(packages, chosen):
        halved = not photo.sharp and min(pixels.shape[:2]) > 700
        yield f"held_{photo.sha256[:8]}", _smaller(pixels, 0.5) if halved else pixels


def others(packages: Path, sklearn: Path | None) -> Iterator[tuple[str, Pixels]]:
    """Name and pixels of the others."""
    with tempfile.TemporaryDirectory() as folder:
        for package, patterns in CHOSEN.items():
            for deb in packages.glob(f"{package}_*.deb"):
                subprocess.run(["dpkg", "-x", deb, folder], check=True)
            for pattern in patterns:
                for path in sorted(Path(folder).rglob(pattern)):
                    yield f"x_{path.stem}", _read(path)
        if sklearn is not None:
            with zipfile.ZipFile(sklearn) as wheel:
                for name in OF_SKLEARN:
                    yield f"x_{Path(name).stem}", _read(Path(wheel.extract(f"sklearn/datasets/images/{name}", folder)))
    for name in OF_SKIMAGE:
        yield f"x_{Path(name).stem}", _read(Path(skimage.data.__file__).parent / name)


def _read(path: Path) -> Pixels:
    pixels = cv2.imread(str(path))
    short = min(pixels.shape[:2])
    share = 1 / 3 if short >= THIRDED else 0.5 if short >= HALVED else 1.0
    return _smaller(pixels, share) if share < 1 else pixels


def _smaller(pixels: Pixels, share: float) -> Pixels:
    return cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)


def main() -> None:
    """Write them as PNG; packages that are missing are fetched by apt."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scikit-learn", type=Path)
    arguments = parser.parse_args()
    arguments.packages.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    wanted = {photo.package for photo in photographs() if photo.split == "heldout"} | set(CHOSEN)
    for package in sorted(wanted):
        if not list(arguments.packages.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=arguments.packages, check=True)
    for name, pixels in (*held_out(arguments.packages), *others(arguments.packages, arguments.scikit_learn)):
        if min(pixels.shape[:2]) >= SMALLEST:
            cv2.imwrite(str(arguments.out / f"{name}.png"), pixels)


if __name__ == "__main__":
    main()
