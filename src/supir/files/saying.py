"""What an error of the disk means, and what can be known before the work."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from supir.errors import ImageWriteError
from supir.files import system

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)  # by Windows, with any suffix
_NEVER_IN_NAMES = re.compile(r'[<>:"|?*\x00-\x1f]')
_TRIAL = 2**16  # bytes for which there must be room at least
_LONGEST_NAME, _LONGEST_PATH = 255, 259  # bytes; characters, of Windows


@contextmanager
def about(path: Path, temporary: Path) -> Iterator[None]:
    """Errors speak of the path, not of the temporary name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and str(temporary) in str(error.filename or temporary):  # a write knows no name
            error.filename = str(path)
            error.filename2 = None
        raise


_REASONS: dict[int, str] = {
    errno.ENOSPC: "the disk is full; make room and run again",
    getattr(errno, "EDQUOT", -1): "your share of the disk is used up; make room and run again",
    errno.EROFS: "the disk can only be read; choose another folder",
    errno.EACCES: "no permission to do so; choose another folder or change its permissions",
    errno.EPERM: "not permitted; choose another folder or change its permissions",
    errno.ENAMETOOLONG: "the name is longer than this disk allows; choose a shorter one",
    errno.EFBIG: "larger than a file on this disk may be; choose another disk",
    errno.EMFILE: "too many files are open; allow more (ulimit -n) or use fewer workers",
    errno.EIO: "the disk reports an error of its own; look after it",
}


_INSIDE = re.compile(r"(?:os error|code:) (\d+)")  # as Rust's libraries write it, safetensors among them
_OF_WINDOWS = {5: errno.EACCES, 19: errno.EROFS, 39: errno.ENOSPC, 112: errno.ENOSPC, 206: errno.ENAMETOOLONG}


def disk_error(error: BaseException) -> OSError | None:
    """The disk's own error in one that a library made of it (libvips, safetensors, torch); None where there is none."""
    if isinstance(error, OSError):
        return error
    before = error.__cause__ or error.__context__
    while before is not None:
        if isinstance(before, OSError) and before.errno in _REASONS:  # others may have nothing to do with it
            return before
        before = before.__cause__ or before.__context__
    text = str(error)
    if (found := _INSIDE.search(text)) is not None:
        code = int(found.group(1))
        code = _OF_WINDOWS.get(code, code) if system.WINDOWS else code
        return OSError(code, os.strerror(code))
    for code in _REASONS:
        if code > 0 and os.strerror(code) in text:
            return OSError(code, os.strerror(code))
    return None


def lacks_room(error: BaseException) -> bool:
    """Whether it means that a disk is full, or somebody's share of it: it may go well when room was made."""
    found = disk_error(error)
    return found is not None and found.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", -1))


def sentence(error: OSError, path: Path | str | None = None, *, failed: str = "", needed: int | None = None) -> str:
    """What an OSError means, for a person: the file, what is wrong, what to do.

    Args:
        error: what came.
        path: what was to be read or written; unset: what the error names.
        failed: what could not be done, as in "cannot be written".
        needed: bytes that were to be written, where that is known.
    """
    name = path if path is not None else error.filename
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    room = ""
    if name is not None and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", -1)):
        with suppress(OSError):
            free = shutil.disk_usage(existing(Path(name).parent)).free
            room = f" ({_size(free)} free{'' if needed is None else f', {_size(needed)} needed'})"
    if system.WINDOWS and name is not None and len(os.path.abspath(name)) > _LONGEST_PATH:  # noqa: PTH100
        reason = f"the path has more than {_LONGEST_PATH} characters; choose a shorter one or allow long paths"
    reason = reason.replace(";", f"{room};", 1) if room else reason
    return ": ".join(str(part) for part in (name, failed, reason) if part)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def check_writable(path: Path | str) -> None:
    """Find out before the work whether a file can be written there: a nameless trial beside it, gone at once.

    Raises:
        OSError: it cannot; `sentence` says why.
    """
    path = Path(path)
    with about(path, path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder; name a file", str(path))
        folder = existing(path.parent)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is a file, so nothing can be written below it", str(folder))
        try:
            with suppress(FileNotFoundError):
                path.lstat()  # too long a name
            with tempfile.TemporaryFile(dir=folder, prefix=".") as trial:
                trial.write(bytes(_TRIAL))
        except OSError as error:
            error.filename = str(path)
            raise


def check_absent(targets: Iterable[Path | None], *, overwrite: bool) -> None:
    """Refuse to write over what is there, where that was not asked for.

    Args:
        targets: files to be written; None stands for none.
        overwrite: whether it was.

    Raises:
        ImageWriteError: one is there.
    """
    for target in filter(None, targets):
        if target.exists() and not overwrite:
            raise ImageWriteError(f"{target} exists; pass --overwrite to replace it", target)


def existing(path: Path) -> Path:
    """The nearest folder above the path, or itself, that is there."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def name_fault(path: Path | str) -> str | None:
    """What this system has against the name of a file, in words; None where nothing is known against it."""
    name = Path(path).name
    if not system.WINDOWS:
        length = len(os.fsencode(name))
        return None if length <= _LONGEST_NAME else f"has {length} bytes; a name has {_LONGEST_NAME} at most"
    if _RESERVED.fullmatch(name.split(".")[0].rstrip(" ")):
        return f"is {name.split('.')[0]!r}, a device of Windows; choose another name"
    if name.endswith((".", " ")):
        return "ends in a dot or a space, which Windows takes away; choose another name"
    if (sign := _NEVER_IN_NAMES.search(name)) is not None:
        return f"holds {sign.group()!r}, which Windows allows in no name; choose another"
    return None
