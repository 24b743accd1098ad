"""What is the same file, on disks that tell capitals and accents apart and on those that do not."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from supir.files import system
from supir.files.saying import existing
from supir.files.whole import remove, temporary_name


class Places:
    """Files among which others are looked for: those there by what the disk says, those planned by their names.

    A disk may take names that differ in capitals, or in how an accent is stored, for one. It is asked about every two
    names that differ in nothing else. Make a new one for each plan: what it found out it keeps.

    Args:
        through_links: what a link leads to counts, and one file by two names is one, as when an input must not be
            overwritten. Otherwise names count, each link has a place of its own, and only the folders above are
            looked through, as when each result needs a place.
    """

    def __init__(self, *, through_links: bool) -> None:
        self._through_links = through_links
        self._by_name: dict[str, list[tuple[str, Path]]] = {}
        self._by_identity: dict[tuple[int, int], Path] = {}
        self._listed: dict[str, frozenset[str]] = {}

    def add(self, path: Path | str) -> None:
        """Remember a file, which may be there or not."""
        real = self._real(path)
        self._by_name.setdefault(_folded(real), []).append((real, Path(path)))
        if (number := self._identity(real)) is not None:
            self._by_identity.setdefault(number, Path(path))

    def find(self, path: Path | str) -> Path | None:
        """The first of those added that this file is or, when it is written, would replace; else None."""
        real = self._real(path)
        for known, added in self._by_name.get(_folded(real), ()):
            if known == real or self._are_one(known, real):
                return added
        number = self._identity(real)
        return None if number is None else self._by_identity.get(number)

    def _real(self, path: Path | str) -> str:
        if self._through_links:
            return os.path.realpath(path)
        folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100
        return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118

    def _identity(self, real: str) -> tuple[int, int] | None:
        try:
            found = os.stat(real)  # noqa: PTH116
        except (OSError, ValueError):
            return None
        # 0: a disk that numbers no files
        return (found.st_dev, found.st_ino) if self._through_links and found.st_ino else None

    def _are_one(self, one: str, other: str) -> bool:
        """Of two real paths that are alike when folded."""
        parts = Path(one).parts
        return all(
            mine == theirs or self._is_one_name(os.path.join(*parts[:index]), mine, theirs)  # noqa: PTH118
            for index, (mine, theirs) in enumerate(zip(parts, Path(other).parts, strict=True))
        )

    def _is_one_name(self, folder: str, one: str, other: str) -> bool:
        found = [os.path.lexists(os.path.join(folder, name)) for name in (one, other)]  # noqa: PTH118
        if not any(found):
            return _tried(existing(Path(folder)), one, other)
        if not all(found):
            return False
        if folder not in self._listed:  # not by inodes: some network disks number what they are asked for
            self._listed[folder] = frozenset(os.listdir(folder))  # noqa: PTH208
        return not {one, other} <= self._listed[folder]


def _folded(name: str) -> str:
    """A name as the most forgiving disk compares it: without capitals, accents composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _tried(folder: Path, one: str, other: str) -> bool:
    """Whether a file that is written under one name is found by the other; tried in a folder of ours, gone at once."""
    trial = temporary_name(folder / "trial")
    try:
        trial.mkdir()
        with (trial / one).open("xb"):
            return os.path.lexists(trial / other)
    except OSError:
        return system.WINDOWS or system.MACOS  # no file can be written there either
    finally:
        remove(trial)
