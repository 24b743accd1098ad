"""What a person names on the command line, as a list of picture files."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from supir.errors import ImageError, ImageReadError, OptionError
from supir.image.targets import SUFFIXES

__all__ = ["by_name", "find_pictures"]


def find_pictures(
    inputs: Iterable[Path | str] | Path | str, *, on_error: Callable[[ImageError], None] | None = None
) -> list[Path]:
    """Files, folders and globs as picture files, in the order given, each once.

    - A file is taken as it is, whatever its suffix (its content decides when it is read).
    - A folder gives its own pictures by suffix, sorted by name, without hidden files; the folders inside are not
      entered: `folder/**` does that.
    - Anything else with *, ? or [ in it is a glob, filtered and sorted likewise. ** goes through folders, but not
      through links to folders, which may lead in a circle.

    Args:
        inputs: one or several.
        on_error: called with each error instead of raising it, so that the others are still found.

    Raises:
        ImageReadError: an input that does not exist, a folder without pictures, a glob without a match.
    """
    found: dict[str, Path] = {}  # by real path: the same file named twice is one picture
    for name in [inputs] if isinstance(inputs, str | Path) else inputs:
        try:
            for path in _pictures_of(name):
                found.setdefault(os.path.realpath(path), path)
        except ImageError as error:
            if on_error is None:
                raise
            on_error(error)
    return list(found.values())


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Paths by their name without suffix, in their order.

    Raises:
        OptionError: two have one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise OptionError(
                f"{found[path.stem]} and {path} have one name, by which results are called; rename one of them"
            )
        found[path.stem] = path
    return found


def _pictures_of(name: Path | str) -> list[Path]:
    path = Path(name)
    kinds = ", ".join(SUFFIXES)
    try:
        if path.is_dir():
            paths = _pictures_only(path.iterdir())
            if not paths:
                raise ImageReadError(
                    f"{path}: a folder without pictures; looked for {kinds}, not in the folders inside it", path
                )
            return paths
        if os.path.lexists(path):
            return [path]
        if glob.has_magic(str(name)):
            paths = _pictures_only(_matches(path))
            if not paths:
                raise ImageReadError(f"{name}: no picture matches; looked for {kinds}", path)
            return paths
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageReadError(f"{path}: cannot be read: {reason}", path) from error
    raise ImageReadError(f"{path}: does not exist; give picture files, folders or globs", path)


def _matches(pattern: Path) -> Iterator[Path]:
    """What a glob stands for; each ** for the folders from there to the bottom, hidden and linked ones left out."""
    if "**" not in pattern.parts:
        yield from map(Path, glob.iglob(str(pattern)))  # noqa: PTH207 (pathlib's matches hidden names)
        return
    at = pattern.parts.index("**")
    rest = pattern.parts[at + 1 :] or ("*",)
    for top in glob.iglob(str(Path(*pattern.parts[:at]))):  # noqa: PTH207
        for folder, inside, _ in os.walk(top):
            inside[:] = [name for name in inside if not name.startswith(".")]
            yield from _matches(Path(glob.escape(folder), *rest))


def _pictures_only(paths: Iterable[Path]) -> list[Path]:
    kept = [
        path for path in paths if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(kept, key=lambda path: (str(path).casefold(), str(path)))
