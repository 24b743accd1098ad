"""Every error that supir raises on purpose.

    SupirError
    ├── OptionError             (also ValueError)   an option or argument outside what is allowed
    ├── ImageError                                  something is wrong with a picture file
    │   ├── ImageReadError                          missing, unreadable, damaged, or not a picture we read
    │   ├── ImageTooLargeError                      more pixels than `max_pixels` allows
    │   └── ImageWriteError                         the result cannot be written where it was asked for
    ├── WeightsError                                something is wrong with a weights file or model folder
    │   ├── KeyMismatchError                        missing, unexpected or mis-shaped keys
    │   └── UnsafeCheckpointError                   a checkpoint that would run code when read
    ├── StudyError                              a study whose pictures, database or votes do not belong together
    ├── OutOfMemoryError        (also MemoryError)  memory ran out even with the smallest tiles
    └── MissingExtraError       (also ImportError)  an optional package is not installed

`except SupirError` catches all of them. A message says what came, what is allowed and what to do. Errors about a
picture carry the file in `.path`.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "ImageError",
    "ImageReadError",
    "ImageTooLargeError",
    "ImageWriteError",
    "KeyMismatchError",
    "MissingExtraError",
    "OptionError",
    "OutOfMemoryError",
    "StudyError",
    "SupirError",
    "UnsafeCheckpointError",
    "WeightsError",
]


class SupirError(Exception):
    """The root of the tree."""


class OptionError(SupirError, ValueError):
    """An option or argument is outside what is allowed."""


class ImageError(SupirError):
    """Something is wrong with a picture file.

    Args:
        message: what came, what is allowed, what to do.
        path: the file in question, where there is one.
    """

    def __init__(self, message: str, path: Path | str | None = None) -> None:
        super().__init__(message)
        self.path = None if path is None else Path(path)


class ImageReadError(ImageError):
    """A picture is missing, unreadable, damaged, or of a kind that is not read."""


class ImageTooLargeError(ImageError):
    """A picture claims more pixels than `max_pixels` allows; nothing of it was decoded."""


class ImageWriteError(ImageError):
    """A result cannot be written where or how it was asked for; no half-written file is left."""


class WeightsError(SupirError):
    """Something is wrong with a weights file or a model folder."""


class KeyMismatchError(WeightsError):
    """The keys of a weights file are not those of the model: missing, unexpected or mis-shaped."""


class UnsafeCheckpointError(WeightsError):
    """A checkpoint that would execute code when read; it was not read."""


class StudyError(SupirError):
    """The pictures, the database or a vote of a study do not belong together, or the database cannot be used."""


class OutOfMemoryError(SupirError, MemoryError):
    """Memory ran out even with the smallest tiles."""


class MissingExtraError(SupirError, ImportError):
    """An optional package is not installed.

    Args:
        package: the package that could not be imported, as it is called on the index.
        extra: the extra of supir that brings it.
        purpose: what it is needed for, as the beginning of a sentence ("the interactive demo's resize").
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'supir[{extra}]'")
