"""Captions of photos that were sent for their preview, while people look at it: a thread that asks the captioner."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from supir.caption import clean_caption
from supir.errors import ServiceError, SupirError
from supir.service.data_folder import Folder
from supir.service.store import Store
from supir.service.stored_job import StoredJob

if TYPE_CHECKING:
    from supir.caption.spec import PictureCaptioner

_log = logging.getLogger("supir.service")


class Describing(threading.Thread):
    """Describes one preview after the other; a photo that gets no caption keeps none, and the log says why.

    Args:
        captioner: asked in this thread alone.
        folder: where the previews are.
        store: where the captions go.
        news: told of a job that has its caption.
        rest: waits a moment, when the database has refused.
    """

    def __init__(
        self,
        captioner: PictureCaptioner,
        folder: Folder,
        store: Store,
        news: Callable[[StoredJob | None], None],
        rest: Callable[[ServiceError], None],
    ) -> None:
        super().__init__(name="describing", daemon=True)
        self._captioner, self._folder, self._store, self._news = captioner, folder, store, news
        self._rest, self._closing = rest, False
        self._waiting: queue.SimpleQueue[StoredJob | None] = queue.SimpleQueue()

    def add(self, job: StoredJob) -> None:
        """A preview is done."""
        self._waiting.put(job)

    def close(self) -> None:
        """End after the picture that is being described."""
        self._closing = True
        self._waiting.put(None)

    def run(self) -> None:
        """Until closed."""
        with self._captioner:
            while (job := self._waiting.get()) is not None:
                try:
                    caption = self._caption(job)
                except (SupirError, OSError, MemoryError) as error:
                    _log.warning("no caption", extra={"job": job.id, "error": str(error) or type(error).__name__})
                    caption = ""
                except Exception:  # a mistake of ours in one picture must not cost the others their captions
                    _log.exception("mistake of ours", extra={"job": job.id})
                    caption = ""
                self._keep(job, caption)
                self._news(job)

    def _keep(self, job: StoredJob, caption: str) -> None:
        while not self._closing:
            try:
                self._store.describe(job.id, caption, self._captioner.name)
                return
            except ServiceError as error:
                self._rest(error)

    def _caption(self, job: StoredJob) -> str:
        from supir import image
        from supir.caption.picture import readable

        return clean_caption(self._captioner(readable(image.read(self._folder.result(job.id, job.suffix)))))
