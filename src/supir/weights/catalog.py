"""What is known of the weights that others publish: how to recognise them, and on what terms they may be used.

They are recognised by structure, the keys they hold; a file's hash is recorded wherever it is used, so that a result
can be traced to the very file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from supir.files import write_whole
from supir.weights.layout import ADAPTOR, CLIP_G, CONNECTORS, DEGRADED_ENCODER, HUB_CLIP_G, HUB_UNET, UNET, Shapes

LARGE = 10_000_000
"""Bytes; smaller files are read each time."""
SETTLED = 2.0
"""Seconds since a file's last change from which on its time tells it from a later state: disks round times."""


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal; what `sha256sum` prints."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_hash(path: Path) -> str:
    """As ``file_hash``, which takes a second a gigabyte or three; kept by the file's place, size and time of change.

    What is kept lies in the user's cache folder. Where that cannot be written, files are read each time.
    """
    stat = path.stat()
    if stat.st_size < LARGE:
        return file_hash(path)
    key = json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    kept = _kept()
    if key not in kept:
        found = file_hash(path)
        if time.time() - stat.st_mtime < SETTLED or path.stat().st_mtime_ns != stat.st_mtime_ns:
            return found
        # Another process may have added some meanwhile; what one of the two loses is only read again.
        kept = {**_kept(), key: found}
        with suppress(OSError):
            write_whole(_place(), json.dumps(kept))
    return kept[key]


def _kept() -> dict[str, str]:
    try:
        found = json.loads(_place().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _place() -> Path:
    return user_cache_path("supir", appauthor=False) / "hashes.json"


HASHED_SUFFIXES = (".safetensors", ".json", ".txt")
REPORT_NAME = "conversion.json"
"""The report that a converted folder holds; it is about the weights, no part of them: folder hashes leave it out."""


PARTS = "parts.json"
"""Where a folder without weights says in which files they lie; their hash is in its index."""


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """Weights known by name; `holds` tells from keys and shapes whether a file has them."""

    name: str
    licence: str
    terms: str
    holds: Callable[[Shapes], bool]


SDXL_BASE = PublishedWeights(
    name="SDXL base",
    licence="CreativeML Open RAIL++-M",
    terms="Commercial use is allowed; the use restrictions of the licence bind every user and go with every copy.",
    holds=lambda shapes: (
        any(key.startswith((UNET + "input_blocks.", HUB_UNET)) for key in shapes)
        and any(key.startswith((CLIP_G, HUB_CLIP_G)) for key in shapes)
    ),
)
SUPIR = PublishedWeights(
    name="SUPIR v0",
    licence="SUPIR licence (non-commercial)",
    terms="Non-commercial use only, without the written permission of the owners. The weights stay theirs; supir does"
    " not distribute them.",
    holds=lambda shapes: any(key.startswith((ADAPTOR, CONNECTORS, DEGRADED_ENCODER)) for key in shapes),
)
CATALOG = (SDXL_BASE, SUPIR)


def recognise(shapes: Shapes) -> tuple[PublishedWeights, ...]:
    """The published weights whose structure is among these keys; a merged file has both, an unknown one none."""
    return tuple(weights for weights in CATALOG if weights.holds(shapes))


def files_hash(files: Mapping[str, Path]) -> str:
    """SHA-256 of several files by name and content: of what `sha256sum` prints for them in the order of their names."""
    listing = "".join(f"{known_hash(path)}  {name}\n" for name, path in sorted(files.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def identity_of(files: Mapping[str, Path]) -> dict[str, str]:
    """What files are called together, those of a folder by its name, and their hash: for records of results."""
    names = " + ".join(dict.fromkeys(name.split("/")[0] for name in files))
    return {"model": names, "model_sha256": files_hash(files)}


def folder_hash(folder: Path | str) -> str:
    """SHA-256 of a model folder: of its weights, configurations and vocabularies, by name and content.

    It is the hash of what `sha256sum` prints for those files in the order of their names, so a folder can be checked
    without this program. Reads every byte the first time; large files that have not changed are known from then on.
    """
    folder = Path(folder)
    left_out = (REPORT_NAME, PARTS)
    files = [path for path in folder.rglob("*") if path.suffix in HASHED_SUFFIXES and path.name not in left_out]
    return files_hash({path.relative_to(folder).as_posix(): path for path in files if path.is_file()})
