"""What a run tells: the log, one JSON line each time (``log.jsonl``), and TensorBoard with its sample sheets."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor

from supir.errors import MissingExtraError
from supir.files import add_entries, sentence

logger = logging.getLogger(__name__)

Value = Tensor | float
"""A number to log."""


class Journal:
    """Writes where it is ``active``, in the first process of a run; ``curves`` go to ``folder/tensorboard``."""

    def __init__(self, folder: Path, name: str, *, curves: bool = False, active: bool = True) -> None:
        self.folder, self.name, self.active = folder, name, active
        self._said = self._failed = False
        self._writer = self._opened() if curves and active else None

    def _opened(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError("tensorboard", "train", "the curves of a training run") from None
        threading.excepthook = _without_curves(threading.excepthook)
        return SummaryWriter(str(self.folder / "tensorboard"))

    def values(self, step: int, values: Mapping[str, float], group: str = "train") -> None:
        """Numbers of one step, everywhere."""
        if not self.active:
            return
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info("%s: step %d, %s: %s", self.name, step, group, shown)
        with self._lines_may_be_lost():
            add_entries(self.folder / "log.jsonl", {"step": step, "group": group, **values})
            if self._writer is not None:
                if self._failed:
                    self._writer, self._failed = self._opened(), False
                for name, value in values.items():
                    self._writer.add_scalar(f"{group}/{name}", value, step)

    def sheet(self, step: int, path: Path) -> None:
        """A sample sheet that was written, among the curves."""
        if self._writer is not None and path.exists():
            pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            with self._lines_may_be_lost():
                self._writer.add_image("samples", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Flush the curves."""
        if self._writer is not None:
            with self._lines_may_be_lost():
                self._writer.close()

    @contextmanager
    def _lines_may_be_lost(self) -> Iterator[None]:
        """A run does not end because there is no room for what it tells; that is said once.

        TensorBoard's writer writes no more once it has failed: with room again the curves go on in another file.
        """
        try:
            yield
        except OSError as error:
            if not self._said:
                warnings.warn(f"the log of the run has gaps: {sentence(error)}", stacklevel=3)
            self._said = self._failed = True


_Hook = Callable[[threading.ExceptHookArgs], Any]


def _without_curves(hook: _Hook) -> _Hook:
    """Tells of a thread's end as ``hook`` does, but not of TensorBoard's writer's: the next write raises that again."""

    def tell(ended: threading.ExceptHookArgs) -> None:
        if not (isinstance(ended.exc_value, OSError) and type(ended.thread).__module__.startswith("tensorboard.")):
            hook(ended)

    return hook if getattr(hook, "__module__", "") == __name__ else tell


class Means:
    """Means of what the steps since the last log gave, summed where it lies: only ``take`` waits for the device."""

    def __init__(self) -> None:
        self._sums, self._number = dict[str, Value](), 0

    def add(self, values: Mapping[str, Value]) -> None:
        """One more step."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + (value.detach() if isinstance(value, Tensor) else value)
        self._number += 1

    def take(self) -> dict[str, float]:
        """The means, and begin anew."""
        found = {name: value for name, value in self._sums.items() if isinstance(value, Tensor)}
        read = torch.stack([value.float() for value in found.values()]).tolist() if found else []
        sums = self._sums | dict(zip(found, read, strict=True))
        means = {name: float(value) / self._number for name, value in sums.items()}
        self._sums, self._number = {}, 0
        return means
