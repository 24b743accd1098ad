"""Every error that supir raises on purpose.

    SupirError
    ├── OptionError                             also ValueError
    ├── ImageError                              ImageReadError, ImageTooLargeError, ImageWriteError
    ├── WeightsError                            KeyMismatchError, UnsafeCheckpointError
    ├── CaptionError                            CaptionerError
    ├── ServiceError                            UploadError, UploadTooLargeError, KeyRefusedError, BusyError,
    │   │                                       ClosingError, JobNotFoundError, JobNotReadyError, JobExpiredError,
    │   │                                       JobFailedError
    │   └── StorageError                        NoRoomError
    ├── StateError, StudyError, DeviceLostError, NotFiniteError
    ├── OutOfMemoryError                        also MemoryError
    └── MissingExtraError                       also ImportError

`except SupirError` catches all of them. A message says what came, what is allowed and what to do. Errors about a
picture carry the file in `.path`.
"""

from __future__ import annotations

from pathlib import Path


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


class CaptionError(SupirError):
    """A picture got no caption; others may.

    Args:
        message: what came, what is allowed, what to do.
        retry_after: seconds after which the same picture may get one; None where it will not.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CaptionerError(CaptionError):
    """No picture will get a caption: the model cannot be loaded, the endpoint is not there or refuses the key."""


class StateError(SupirError):
    """A state of a training run cannot be written, or not be read on this machine; earlier states are untouched."""


class StudyError(SupirError):
    """The pictures, the database or a vote of a study do not belong together, or the database cannot be used."""


class ServiceError(SupirError):
    """The service cannot do, or does not allow, what it was asked for; or it cannot be reached.

    Args:
        message: what came, what is allowed, what to do.
        retry_after: seconds after which the same request may be answered otherwise; None where it will not.
    """

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UploadError(ServiceError):
    """The body of a request is not what a submission must be."""


class UploadTooLargeError(ServiceError):
    """A file of more bytes than this service takes; the rest of it was not read."""


class KeyRefusedError(ServiceError):
    """No key came, or one that this service does not know."""


class JobNotFoundError(ServiceError):
    """There is no such job, or it belongs to another key."""


class JobNotReadyError(ServiceError):
    """The job is not in a state in which it has what was asked for."""


class JobExpiredError(ServiceError):
    """The result was kept as long as this service keeps results, and is gone."""


class JobFailedError(ServiceError):
    """The job failed or was cancelled: there will be no result."""


class BusyError(ServiceError):
    """There are too many jobs or requests."""


class StorageError(ServiceError):
    """What the service keeps cannot be written now: its database is locked, or its disk can only be read."""


class NoRoomError(StorageError):
    """The disk has no room for what would be written."""


class ClosingError(ServiceError):
    """The service is being stopped and takes no new jobs."""


class DeviceLostError(SupirError):
    """The accelerator failed, and every further use of it by this process would fail too."""


class NotFiniteError(SupirError):
    """The networks answer with NaN or infinity, and no wider arithmetic helps."""


class OutOfMemoryError(SupirError, MemoryError):
    """Memory ran out even with the smallest tiles."""


class MissingExtraError(SupirError, ImportError):
    """An optional package is not installed.

    Args:
        package: the package that could not be imported, as it is called on the index.
        extra: the extra of supir that brings it.
        purpose: what it is needed for, as the beginning of a sentence ("the page of a study").
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'supir[{extra}]'")
