"""What is the same file, on disks that tell capitals and accents apart and on those that do not."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

from supir.errors import OptionError
from supir.files import system
from supir.files.saying import existing, name_fault
from supir.files.whole import remove, temporary_name


class Places:
    """Files, there or planned, among which others are looked for.

    A disk may take names that differ in capitals, or in how an accent is stored, for one. It is asked about every two
    names that differ in nothing else. Make a new one for each plan: what it found out it keeps.

    Args:
        through_links: what a link leads to is its place; otherwise a link has a place of its own, and only the folders
            above it are looked through.
        paths: the first files.
    """

    def __init__(self, paths: Iterable[Path | str] = (), *, through_links: bool) -> None:
        self._through_links = through_links
        self._by_name: dict[str, list[tuple[str, Path]]] = {}
        self._by_number: dict[tuple[int, int], Path] | None = None
        self._listed: dict[str, frozenset[str]] = {}
        self._folders: dict[str, str] = {}
        for path in paths:
            self.add(path)

    def add(self, path: Path | str) -> None:
        """Remember a file, which may be there or not."""
        real = self._real(path)
        self._by_name.setdefault(_folded(real), []).append((real, Path(path)))
        self._by_number = None

    def find(self, path: Path | str) -> Path | None:
        """The first of those added that has this place, or would have it once it is written; else None."""
        real = self._real(path)
        for known, added in self._by_name.get(_folded(real), ()):
            if known == real or self._are_one(known, real):
                return added
        return None

    def find_file(self, path: Path | str) -> Path | None:
        """Likewise, or the one whose file this is by another name: a hard link, a folder that is mounted twice."""
        found = self.find(path)
        number = None if found is not None else _number(path)
        if number is None:
            return found
        if self._by_number is None:
            added = [path for entries in self._by_name.values() for _, path in entries]
            self._by_number = {known: path for path in reversed(added) if (known := _number(path)) is not None}
        return self._by_number.get(number)

    def __contains__(self, path: Path | str) -> bool:
        return self.find(path) is not None

    def _real(self, path: Path | str) -> str:
        if self._through_links:
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        if folder not in self._folders:  # most files of a plan share a few
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)  # noqa: PTH118

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


def check_apart(results: Collection[tuple[Path, Path]]) -> None:
    """Refuse, before anything is made, results that would overwrite an input or one another.

    Args:
        results: (input, result) of each.

    Raises:
        OptionError: one would, or has a name that this system does not take; the message names the files.
    """
    inputs, taken = Places((source for source, _ in results), through_links=True), Places(through_links=True)
    made_from: dict[Path, Path] = {}
    for source, target in results:
        if (fault := name_fault(target)) is not None:
            raise OptionError(f"{target}: the name {fault}")
        if (hit := inputs.find_file(target)) is not None:
            which = "is an input" if hit == target else f"is the input {hit}"
            raise OptionError(f"{target} {which} and is never overwritten; choose another --output")
        if (other := taken.find(target)) is not None:
            here = "" if other == target else f", which this disk takes for {other}"
            raise OptionError(
                f"{made_from[other]} and {source} would both be written to {target}{here}; do it one by one or into"
                " different folders"
            )
        taken.add(target)
        made_from[target] = source


def _number(path: Path | str) -> tuple[int, int] | None:
    """The disk's own number of a file; None where it is not there, or the disk numbers none."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else None


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


def path_within(root: str | Path, name: str, what: str) -> Path:
    """A path that a stranger names, inside of a folder.

    Raises:
        OptionError: it leads out of it, or names nothing.
    """
    folder = Path(root).resolve()
    path = (folder / name).resolve()
    if not name.strip() or not path.is_relative_to(folder) or path == folder:
        raise OptionError(f"{what} is {name!r}; it must be a file in {root}, named from there")
    return path


def stamp_of(paths: Iterable[str | Path]) -> str:
    """What tells that files have changed: names, sizes and times; those inside of folders too."""
    named = [Path(path) for path in paths]
    files = [file for path in named for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return str([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()])
