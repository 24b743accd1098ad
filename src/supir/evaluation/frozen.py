"""Frozen sets: which pictures a table is of, by name and pixels, so that two tables are of the same or say so.

    {"set": "town", "version": 1, "pictures": {"0001": "SHA-256 of its pixels", ...}}

A picture's name decides what is drawn for it, its pixels what is restored; the kind of its file decides nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supir.degradation.pairs import pixels_sha256
from supir.errors import OptionError
from supir.files import write_whole
from supir.image import by_name, read

PROTOCOL = 2
"""Of the benchmarks: how pictures are degraded, restored and scored. 2: ``default`` and ``light`` draw as published."""


@dataclass(frozen=True, kw_only=True)
class FrozenSet:
    """The pictures of a benchmark; another choice of pictures is another ``version``."""

    name: str
    version: int
    pictures: dict[str, str]
    """SHA-256 of 8-bit RGB pixels by the picture's name without suffix, in their order."""

    def __str__(self) -> str:
        """In a line."""
        return f"{self.name} version {self.version}, {len(self.pictures)} pictures, {self.sha256[:12]}"

    @property
    def sha256(self) -> str:
        """Of names and pixels."""
        return hashlib.sha256(json.dumps(self.pictures, sort_keys=True).encode()).hexdigest()

    def among(self, paths: Sequence[Path]) -> list[Path]:
        """The files of the set among others, in its order.

        Raises:
            OptionError: one is missing or has other pixels.
            ImageError: one cannot be read.
        """
        known = by_name([path for path in paths if path.stem in self.pictures])
        if missing := [name for name in self.pictures if name not in known]:
            raise OptionError(f"{len(missing)} pictures of {self} are missing, such as {missing[0]}; name their folder")
        for name, path in known.items():
            if pixels_sha256(read(path).rgb) != self.pictures[name]:
                raise OptionError(f"{path} is not the {name} of {self}: its pixels differ; get the set's own pictures")
        return [known[name] for name in self.pictures]


def freeze_set(paths: Sequence[Path], name: str, version: int, out: Path) -> FrozenSet:
    """Write down a set of pictures.

    Raises:
        OptionError: two pictures have one name.
        ImageError: one cannot be read.
    """
    pictures = {each: pixels_sha256(read(path).rgb) for each, path in sorted(by_name(paths).items())}
    found = FrozenSet(name=name, version=version, pictures=pictures)
    write_whole(out, json.dumps({"set": name, "version": version, "pictures": pictures}, indent=1) + "\n")
    return found


def read_set(path: Path) -> FrozenSet:
    """A set that ``freeze_set`` wrote.

    Raises:
        OptionError: the file is none.
    """
    try:
        stored: dict[str, Any] = json.loads(path.read_bytes())
        pictures = {str(name): str(sha256) for name, sha256 in stored["pictures"].items()}
        return FrozenSet(name=str(stored["set"]), version=int(stored["version"]), pictures=pictures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"{path} is no set of `supir benchmark freeze` ({error})") from error
