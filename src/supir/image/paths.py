"""Picture files by their names: those that a person names on the command line, and where one may be written."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from supir.errors import ImageError, ImageReadError, ImageWriteError, OptionError
from supir.files import Places, check_writable, name_fault, sentence

SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WebP", ".tif": "TIFF", ".tiff": "TIFF",
    ".avif": "AVIF",
}  # fmt: skip
"""The formats by suffix, in lower case; files of these suffixes are what a folder's pictures are."""

DEVELOPED = (
    ".heic", ".heif", ".dng", ".arw", ".cr2", ".cr3", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw",
)  # fmt: skip
"""Suffixes of files that are read but not written: of phones, and raw ones of cameras."""

MAX_SIDE = {"JPEG": 65500, "WebP": 16383, "AVIF": 16384}
"""Pixels of the longer side that a format can hold; PNG and TIFF hold whatever memory does."""


def find_pictures(
    inputs: Iterable[Path | str] | Path | str,
    *,
    on_error: Callable[[ImageError], None] | None = None,
    leave_out: Callable[[Path], bool] = lambda path: False,
) -> list[Path]:
    """Files, folders and globs as picture files, in the order given, each once; a link is a picture of its own.

    - A file is taken as it is, whatever its suffix (its content decides when it is read).
    - A folder gives its own pictures by suffix, sorted by name, without hidden files; the folders inside are not
      entered: `folder/**` does that.
    - Anything else with *, ? or [ in it is a glob, filtered and sorted likewise. ** goes through folders, but not
      through links to folders, which may lead in a circle.

    Args:
        inputs: one or several.
        on_error: called with each error instead of raising it, so that the others are still found.
        leave_out: which of a folder's or a glob's pictures are not meant; a file that is named always is.

    Raises:
        ImageReadError: an input that does not exist, a folder without pictures, a glob without a match, or only such
            as are left out.
    """
    found: list[Path] = []
    known = Places(through_links=False)
    for name in [inputs] if isinstance(inputs, str | Path) else inputs:
        try:
            for path in _pictures_of(name, leave_out):
                if path not in known:
                    known.add(path)
                    found.append(path)
        except ImageError as error:
            if on_error is None:
                raise
            on_error(error)
    return found


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


def _pictures_of(name: Path | str, leave_out: Callable[[Path], bool]) -> list[Path]:
    path = Path(name)
    kinds = ", ".join((*SUFFIXES, *DEVELOPED))
    try:
        if path.is_dir():
            paths = _pictures_only(path.iterdir())
            none = f"{path}: a folder without pictures; looked for {kinds}, not in the folders inside it"
        elif os.path.lexists(path):
            return [path]
        elif glob.has_magic(str(name)):
            paths = _pictures_only(_matches(path))
            none = f"{name}: no picture matches; looked for {kinds}"
        else:
            raise ImageReadError(f"{path}: does not exist; give picture files, folders or globs", path)
    except OSError as error:
        raise ImageReadError(sentence(error, path, failed="cannot be read"), path) from error
    except ValueError as error:  # a null character
        raise ImageReadError(f"{path}: cannot be read: {error}", path) from error
    if not paths:
        raise ImageReadError(none, path)
    kept = [path for path in paths if not leave_out(path)]
    if not kept:
        raise ImageReadError(f"{name}: no picture but results; name those that are meant all the same", path)
    return kept


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
        path
        for path in paths
        if path.suffix.lower() in (*SUFFIXES, *DEVELOPED) and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(kept, key=lambda path: (str(path).casefold(), str(path)))


def check_target(path: Path | str, size: tuple[int, int] | None = None) -> None:
    """Find out before the work whether its result can be written; nothing is left behind.

    Args:
        path: of the result. Its folder need not exist; it is made when the result is written.
        size: (height, width) of the result in pixels, where it is known.

    Raises:
        ImageWriteError: the suffix is none of ``SUFFIXES``, the size is beyond the format's, the path is a folder or
            too long, or no file can be made in its folder.
    """
    path = Path(path)
    kind = kind_of(path)
    if size is not None:
        check_size(path, kind, size)
    if (fault := name_fault(path)) is not None:
        raise ImageWriteError(f"{path}: cannot be written: the name {fault}", path)
    try:
        check_writable(path)
    except OSError as error:
        raise ImageWriteError(sentence(error, failed="cannot be written"), path) from error
    except ValueError as error:  # a null character in the name
        raise ImageWriteError(f"{path}: cannot be written: {error}", path) from error


def kind_of(path: Path) -> str:
    """The format that a suffix stands for.

    Raises:
        ImageWriteError: none.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise ImageWriteError(f"{path}: suffix {path.suffix!r}; allowed are {', '.join(SUFFIXES)}", path)
    return kind


def check_size(path: Path, kind: str, size: tuple[int, int]) -> None:
    """Raise ImageWriteError where (height, width) is more than the format holds."""
    if max(size) > MAX_SIDE.get(kind, 2**31):
        raise ImageWriteError(
            f"{path}: {size[1]} x {size[0]} pixels; {kind} holds {MAX_SIDE[kind]} a side at most: "
            "choose .png or .tiff", path
        )  # fmt: skip
