"""Photographs for the tests of data sets: small, of texture and shapes, good by every rule, each unlike the others."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from supir.data.options import BuildOptions, QualityRules
from supir.data.pixels import Pixels

RULES = QualityRules(min_side=64)
OPTIONS = BuildOptions(rules=RULES, photos_per_shard=5)


@dataclass(frozen=True)
class Cropped:
    """Samples of a run that are crops of a source and nothing else; a module this light begins quickly in workers."""

    source: Any
    size: int

    def __call__(self, rng: np.random.Generator, number: int) -> Any:
        return self.source.draw(rng, self.size, number)


def photo(seed: int = 0, height: int = 96, width: int = 128) -> Pixels:
    """Coarse shapes of random colours under fine texture."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(30, 225, (6, 8, 3), dtype=np.uint8))
    shapes = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(shapes + random.integers(-12, 13, (height, width, 1)), 0, 255).astype(np.uint8)


def encoded(pixels: Pixels, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **({"quality": 92} if kind == "JPEG" else {}), **options)  # type: ignore[arg-type]
    return stream.getvalue()


def save(path: Path, pixels: Pixels, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF"}[path.suffix]
    path.write_bytes(encoded(pixels, kind, **options))
    return path


def album(folder: Path, count: int = 12) -> Path:
    """A folder of JPEG and PNG photographs, some in folders inside, with captions and licences."""
    for number in range(count):
        place = folder / ("a" if number % 2 else "b") / f"photo {number:02}{'.png' if number % 3 == 0 else '.jpg'}"
        save(place, photo(number))
        place.with_suffix(".txt").write_text(f"picture number {number}\n")
    (folder / "a" / "licences.csv").write_text("file,licence,author\nphoto 01.jpg,CC0-1.0,Ada\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a data set that must not depend on how it was built."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
