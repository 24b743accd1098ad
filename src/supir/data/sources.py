"""Which photographs a data set is built from, and the files beside them that say something about them."""

from __future__ import annotations

import codecs
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from supir.errors import ImageReadError
from supir.files import Places
from supir.image import DEVELOPED, SUFFIXES, find_pictures

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(data: bytes, path: str, picture: str | None = None) -> str:
    """The text of a file: by its mark where it has one, else UTF-8. Another encoding is not guessed.

    The error tells the file, and the picture which the words are about.

    Raises:
        ImageReadError: it is neither.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        raise ImageReadError(
            f"{path}: its words are not {encoding.removesuffix('-sig').upper()} ({error}); save it as UTF-8",
            picture or path,
        ) from error
    if "\0" in text:
        raise ImageReadError(f"{path}: holds null characters, as UTF-16 without its mark; save it as UTF-8", picture)
    return text


logger = logging.getLogger(__name__)

LISTS = ("licences.csv", "licences.json")
"""Files that say something about all pictures of their folder."""


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A file beside a picture: a caption, a record, or a list of licences; with what tells whether it has changed."""

    path: str
    size: int
    """Bytes."""
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """A picture file as it was found, with what tells whether it has changed since."""

    path: str
    size: int
    """Bytes."""
    mtime_ns: int
    companions: tuple[Companion, ...] = ()

    @property
    def identity(self) -> str:
        """The same as long as neither the file nor one of its companions has changed."""
        parts = [(self.path, self.size, self.mtime_ns)]
        parts += [(beside.path, beside.size, beside.mtime_ns) for beside in self.companions]
        return repr(parts)


def find_photographs(
    inputs: Iterable[Path | str], *, skip: Path | None = None, each_link: bool = False
) -> list[Source]:
    """Files, folders with all folders inside them, and globs, as sources sorted by the bytes of their path.

    Hidden files and folders are left out. Linked folders are not entered (no loop can arise); linked files are taken,
    each real file once, under the name that sorts first.

    Args:
        inputs: as `supir.image.find_pictures`, but folders are gone through to the bottom.
        skip: a folder that is not entered: the one that is being built.
        each_link: take a linked file as a picture of its own, beside the one that it leads to.

    Raises:
        ImageReadError: an input does not exist, a folder holds no picture, a glob matches nothing.
    """
    skipped = Places([] if skip is None else [skip], through_links=True)
    found: list[Source] = []
    for name in inputs:
        if os.path.isdir(name):  # noqa: PTH112 (a name may hold a null character: answered with False)
            inside = list(_walk(str(name), skipped))
            if not inside:
                kinds = ", ".join((*SUFFIXES, *DEVELOPED))
                raise ImageReadError(f"{name}: no picture in this folder or those inside it; looked for {kinds}", name)
            found += inside
        else:
            found += [source for path in find_pictures([name]) if (source := _single(str(path))) is not None]
    unique: list[Source] = []
    known = Places(through_links=not each_link)
    for source in sorted(found, key=lambda source: os.fsencode(source.path)):
        if source.path not in known:
            known.add(source.path)
            unique.append(source)
    return unique


def _walk(root: str, skipped: Places) -> Iterator[Source]:
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as scan:
                entries = [entry for entry in scan if not entry.name.startswith(".")]
        except OSError as error:
            logger.warning("%s: left out, cannot be read: %s", folder, error.strerror)
            continue
        names = {entry.name for entry in entries}
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.path not in skipped:
                    pending.append(entry.path)
            elif Path(entry.name).suffix.lower() in (*SUFFIXES, *DEVELOPED) and _is_file(entry):
                source = _source(folder, entry.name, names)
                if source is not None:
                    yield source


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads in a circle
        return False


def _single(path: str) -> Source | None:
    folder, name = os.path.split(path)
    beside = [*_companion_names(name), *LISTS]
    return _source(folder, name, {other for other in beside if Path(folder, other).is_file()})


def _companion_names(name: str) -> list[str]:
    """Captions and records of a picture, the more particular first: a.jpg.txt, a.txt, a.jpg.json, a.json."""
    stem = Path(name).stem
    names = [f"{base}{suffix}" for suffix in (".txt", ".json") for base in (name, stem)]
    return [other for other in names if other not in LISTS]


def _source(folder: str, name: str, names: set[str]) -> Source | None:
    """None when the picture has vanished since it was listed."""
    companions = []
    for other in (*_companion_names(name), *LISTS):
        if other in names:
            path = os.path.join(folder, other)  # noqa: PTH118 (keeps the path as it was typed)
            try:
                stat = Path(path).stat()
            except OSError:
                continue
            companions.append(Companion(path=path, size=stat.st_size, mtime_ns=stat.st_mtime_ns))
    path = os.path.join(folder, name)  # noqa: PTH118
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return Source(path=path, size=stat.st_size, mtime_ns=stat.st_mtime_ns, companions=tuple(companions))
