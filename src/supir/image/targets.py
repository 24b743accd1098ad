"""Where a picture may be written: what a suffix stands for, how large such a file may be, if the folder takes it."""

from __future__ import annotations

from pathlib import Path

from supir.errors import ImageWriteError
from supir.files import check_writable, name_fault, sentence

SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WebP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
"""The formats by suffix, in lower case; files of these suffixes are what a folder's pictures are."""

MAX_SIDE = {"JPEG": 65500, "WebP": 16383}
"""Pixels of the longer side that a format can hold; PNG and TIFF hold whatever memory does."""


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
