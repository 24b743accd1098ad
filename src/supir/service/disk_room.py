"""Lack of room is a state: whether what the service keeps can be written, found out again and again until it can.

Meanwhile what is kept is read, and deleted. A reserve on the disk is given up where nothing else lets the database
write down what was deleted, and where a service starts on a full disk.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from supir.errors import NoRoomError, ServiceError, StorageError
from supir.files import disk_error, lacks_room, write_whole

RESERVE = 1 << 20
"""Bytes that must be free for anything to be begun, and that are held back."""
_LOOK, _LOOK_AGAIN = 5.0, 1.0
"""Seconds between two looks while there is room, and while there is none."""
_QUIET = 60.0
"""Seconds for which the same trouble is not said again."""
_RETRY_AFTER = 10
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENODEV, errno.ESTALE)
_FULL_SAID = "the service's disk is full; nothing new is taken until there is room again"
_UNWRITABLE_SAID = "what the service keeps cannot be written now; nothing new is taken until it can"
_NAME = "reserve"
_log = logging.getLogger("supir.service")
Done = TypeVar("Done")


def with_reserve(folder: Path, do: Callable[[], Done]) -> Done:
    """Do what needs little room; where there is none, the reserve in the folder is given up for it.

    Raises:
        NoRoomError: there was none to give up, or it was not enough.
    """
    try:
        return do()
    except NoRoomError:
        try:
            (folder / _NAME).unlink()
        except OSError:
            pass
        else:
            return do()
        raise


class Room:
    """The state. Any thread may ask.

    Args:
        folder: of the service.
        write: has the database write what it owes, and with that shows that it can be written.
        on_change: told when there is room again.
    """

    def __init__(self, folder: Path, write: Callable[[], None], on_change: Callable[[], None]) -> None:
        self._folder, self._reserve, self._write, self._on_change = folder, folder / _NAME, write, on_change
        self.trouble: StorageError | None = None
        """Why nothing new is taken, as it is said to clients; None while there is room."""
        self._lock = threading.Lock()
        self._bell, self._closed = threading.Event(), threading.Event()
        self._said: tuple[str, float] = "", 0.0
        self._keeper = threading.Thread(target=self._keep, name="room", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self.look()
        self._bell.set()
        self._keeper.start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        self._bell.set()
        if self._keeper.ident is not None:
            self._keeper.join()

    def look(self) -> StorageError | None:
        """The trouble, a disk that has filled up since the last look included."""
        if self.trouble is None and self._is_full():
            self._begin(NoRoomError(_FULL_SAID, _RETRY_AFTER), f"less than {RESERVE} bytes are free")
        return self.trouble

    def check(self) -> None:
        """Raise what there is of trouble.

        Raises:
            StorageError: there is no room, or the database cannot be written.
        """
        trouble = self.look()
        if trouble is not None:
            raise type(trouble)(str(trouble), trouble.retry_after)

    def refused(self, error: ServiceError) -> None:
        """The database has refused to write: a trouble, until it writes."""
        kind, said = (NoRoomError, _FULL_SAID) if isinstance(error, NoRoomError) else (StorageError, _UNWRITABLE_SAID)
        self._begin(kind(said, _RETRY_AFTER), str(error))

    def doubt(self) -> None:
        """Something did not find room: look at once whether anything does."""
        self._bell.set()

    @contextmanager
    def minded(self) -> Iterator[None]:
        """What cannot be written within is a sentence for the client.

        Raises:
            NoRoomError: the disk had no room for it.
            StorageError: the disk can only be read, or the database is locked.
        """
        try:
            yield
        except StorageError as error:
            if error.retry_after is not None:  # from `check`
                raise
            self.refused(error)
            raise type(error)(str(self.trouble or _UNWRITABLE_SAID), _RETRY_AFTER) from error
        except OSError as error:
            self.doubt()
            found = disk_error(error)
            if lacks_room(error):
                raise NoRoomError("the service's disk has no room for this; try again later", _RETRY_AFTER) from error
            if found is not None and found.errno in _UNWRITABLE:
                raise StorageError(_UNWRITABLE_SAID, _RETRY_AFTER) from error
            raise

    def _begin(self, trouble: StorageError, reason: str) -> None:
        with self._lock:
            begins, self.trouble = self.trouble is None, trouble
            said, when = self._said
            if begins and (said != str(trouble) or time.monotonic() - when > _QUIET):
                self._said = str(trouble), time.monotonic()
                _log.error("nothing new is taken", extra={"error": str(trouble), "reason": reason})
        if begins:
            self._bell.set()

    def _end(self) -> None:
        with self._lock:
            ends, self.trouble = self.trouble is not None, None
        if ends:
            _log.info("there is room again")
            self._on_change()

    def _keep(self) -> None:
        while not self._closed.is_set():
            doubted = self._bell.wait(_LOOK if self.trouble is None else 0)
            self._bell.clear()
            if self._closed.wait(0 if self.trouble is None else _LOOK_AGAIN):
                return
            try:
                if self._writes() and (self.trouble is not None or doubted or not self._reserve.exists()):
                    self._fill_reserve()
                    self._end()
            except OSError as error:
                if lacks_room(error):
                    self._begin(NoRoomError(_FULL_SAID, _RETRY_AFTER), str(error))
                else:
                    self._begin(StorageError(_UNWRITABLE_SAID, _RETRY_AFTER), str(error))

    def _writes(self) -> bool:
        """Whether the database can be written; where it owes something, the reserve is given up for that."""
        try:
            with_reserve(self._folder, self._write)
        except ServiceError as error:
            self.refused(error)
            return False
        return True

    def _fill_reserve(self) -> None:
        """Write as much as is held back, which shows that there is room; and hold it back.

        Raises:
            OSError: there is none.
        """
        self._check_free()
        write_whole(self._reserve, os.urandom(RESERVE))  # what no disk makes smaller
        self._check_free()

    def _check_free(self) -> None:
        if self._is_full():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    def _is_full(self) -> bool:
        with suppress(OSError):
            return shutil.disk_usage(self._folder).free < RESERVE
        return False
