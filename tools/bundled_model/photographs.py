"""The training photographs: found in Debian packages, chosen by eye, named by hash.

``photographs.json`` lists every photograph with its package, version, file, licence, caption and the hash of its
image stream. Many sit inside containers (theme files, resource archives), so files are searched for JPEG, WebP and PNG
streams and a stream is kept when its hash is listed. Nothing else is ever trained on.

    python tools/bundled_model/photographs.py --packages DEBS --out TILES [--public-domain]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from supir.files import write_whole

logger = logging.getLogger(__name__)

TILE = 256
"""Side of a stored tile, pixels."""
REDUCTIONS = (2, 3, 4)
"""Factors by which photographs are reduced before they are cut."""
REDUCTIONS_OF_SHARP = (1, 2)
"""The same of photographs that are sharp as they are."""
FLATTEST = 3.0
"""Tiles whose grey levels deviate less than this (of 255) are left out."""
PUBLIC_DOMAIN = ("public domain", "public-domain", "cc0-1.0")
_SMALLEST_STREAM = 40_000
_LIST = Path(__file__).with_name("photographs.json")


@dataclass(frozen=True)
class Photograph:
    """One listed photograph."""

    package: str
    version: str
    file: str
    offset: int
    """Where the stream begins in the file, bytes (informative: the hash decides)."""
    width: int
    height: int
    sha256: str
    licence: str
    split: str
    """``train`` or ``heldout``."""
    caption: str
    sharp: bool = False
    """Sharp and clean as it is: need not be halved."""


def photographs(*, public_domain: bool = False) -> list[Photograph]:
    """All listed photographs, or those in the public domain, in the order of the list."""
    found = [Photograph(**entry) for entry in json.loads(_LIST.read_text(encoding="utf-8"))["photographs"]]
    return [photo for photo in found if not public_domain or photo.licence.lower() in PUBLIC_DOMAIN]


def download(folder: Path, wanted: list[Photograph]) -> None:
    """Fetch the packages of photographs into ``folder`` with apt (Debian and its relatives only)."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in sorted({photo.package for photo in wanted}):
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)


def jpeg_end(data: bytes, start: int) -> int | None:
    """One past the end of the JPEG stream that begins at ``start``; None when it is not one."""
    position = start + 2
    while position + 2 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xD9:
            return position + 2
        if marker == 0xFF:
            position += 1
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker != 0xDA:
            continue
        # Entropy-coded data: runs to the next marker that is neither a stuffed zero nor a restart.
        while (position := data.find(b"\xff", position)) >= 0 and position + 1 < len(data):
            if data[position + 1] != 0 and not 0xD0 <= data[position + 1] <= 0xD7:
                break
            position += 2
        if position < 0:
            return None
    return None


def image_streams(data: bytes) -> Iterator[bytes]:
    """Every PNG file, JPEG stream and WebP stream of ``data`` of a fair size."""
    if data.startswith(b"\x89PNG"):
        yield data
        return
    position = 0
    while (position := data.find(b"\xff\xd8\xff", position)) >= 0:
        end = jpeg_end(data, position)
        if end is not None and end - position > _SMALLEST_STREAM:
            yield data[position:end]
            position = end
        else:
            position += 3
    position = 0
    while (position := data.find(b"RIFF", position)) >= 0:
        length = 8 + int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position + 8 : position + 12] == b"WEBP" and length > _SMALLEST_STREAM:
            yield data[position : position + length]
        position += 8


def read_photographs(packages: Path, photos: list[Photograph]) -> Iterator[tuple[Photograph, npt.NDArray[np.uint8]]]:
    """(photograph, its BGR pixels) for every one of them found in the ``.deb`` files of ``packages``."""
    listed: dict[tuple[str, str], dict[str, Photograph]] = {}
    for photo in photos:
        listed.setdefault((photo.package, photo.file), {})[photo.sha256] = photo
    for deb in sorted(packages.glob("*.deb")):
        package = deb.name.split("_")[0]
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["dpkg", "-x", deb, folder], check=True)
            for (owner, file), wanted in listed.items():
                if owner != package or not (Path(folder) / file).is_file():
                    continue
                for stream in image_streams((Path(folder) / file).read_bytes()):
                    found = wanted.get(hashlib.sha256(stream).hexdigest())
                    if found is not None:
                        pixels: Any = cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_COLOR)
                        yield found, pixels


def detail(tile: npt.NDArray[np.uint8]) -> float:
    """Mean change in grey levels when a tile is halved and enlarged again: what a sharp picture loses."""
    half = cv2.resize(tile, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return float(cv2.absdiff(tile, cv2.resize(half, tile.shape[1::-1], interpolation=cv2.INTER_CUBIC)).mean())


def _tiles(pixels: npt.NDArray[np.uint8], *, sharp: bool) -> Iterator[npt.NDArray[np.uint8]]:
    """Disjoint RGB tiles of a photograph reduced by 2, and of a large one also by 3 and 4 (sharper per pixel)."""
    height, width = pixels.shape[:2]
    reductions = REDUCTIONS_OF_SHARP if sharp else REDUCTIONS
    for factor in reductions:
        if factor > reductions[0] and (min(height, width) < factor * TILE or width * height < 2e6):
            continue
        small = cv2.resize(pixels, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
        small = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
        for top in range(0, small.shape[0] - TILE + 1, TILE):
            for left in range(0, small.shape[1] - TILE + 1, TILE):
                tile = small[top : top + TILE, left : left + TILE]
                if cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY).std() >= FLATTEST:
                    yield tile.astype(np.uint8)


def write_tiles(packages: Path, out: Path, photos: list[Photograph]) -> dict[str, int]:
    """Write ``SPLIT.npy``, (N, 256, 256, 3) uint8 RGB, most detailed first, and ``SPLIT_captions.json``, one a tile.

    Returns the counts. The order lets training prefer sharp tiles: half of them lose next to nothing when halved, and
    nothing about sharpness can be learned from those.
    """
    out.mkdir(parents=True, exist_ok=True)
    tiles: dict[str, list[tuple[npt.NDArray[np.uint8], str]]] = {"train": [], "heldout": []}
    num_found = 0
    for photo, pixels in read_photographs(packages, photos):
        num_found += 1
        tiles[photo.split] += [(tile, photo.caption) for tile in _tiles(pixels, sharp=photo.sharp)]
        if photo.split == "heldout":
            half = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(out / f"heldout_{photo.sha256[:8]}.png"), half)
    logger.info("%d of %d listed photographs found", num_found, len(photos))
    for split, found in tiles.items():
        found.sort(key=lambda pair: -detail(pair[0]))
        np.save(out / f"{split}.npy", np.stack([tile for tile, _ in found]))
        write_whole(out / f"{split}_captions.json", json.dumps([caption for _, caption in found]))
    return {split: len(found) for split, found in tiles.items()}


def main() -> None:
    """Command line: download when the folder has no packages, then write the tiles."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--public-domain", action="store_true", help="only photographs in the public domain")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    photos = photographs(public_domain=arguments.public_domain)
    if not list(arguments.packages.glob("*.deb")):
        download(arguments.packages, photos)
    logger.info("tiles: %s", write_tiles(arguments.packages, arguments.out, photos))


if __name__ == "__main__":
    main()
