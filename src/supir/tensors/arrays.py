"""Arrays too large for memory, read and written window by window.

Whatever has a ``shape`` (B, C, H, W) and gives a tensor for ``[..., top:bottom, left:right]`` can be tiled: a tensor
itself, numbers in a file (``MemmapArray``), or pixels that are computed when they are asked for.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import EllipsisType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Index = tuple[EllipsisType, slice, slice]
"""``[..., top:bottom, left:right]``"""


class ArrayLike(Protocol):
    """What is read by windows; a tensor is one."""

    @property
    def shape(self) -> torch.Size:
        """(B, C, H, W)."""
        ...

    def __getitem__(self, index: Index) -> Tensor:
        """The window, a tensor (B, C, rows, columns)."""
        ...


class MemmapArray:
    """float32 numbers (B, C, H, W) in a nameless file, all 0 at first; the file goes when this does, or the process.

    What is read is mapped, copied and let go, so that nothing of the file counts as the process's memory.

    Args:
        shape: (B, C, H, W).
        folder: of the file. The system's own folder for such files may lie in memory.
        device: of the tensors that are given.

    Raises:
        OSError: there is no room in the folder, now or when a window is written.
    """

    def __init__(self, shape: torch.Size | tuple[int, ...], folder: Path, device: torch.device | str = "cpu") -> None:
        self.shape, self.device = torch.Size(shape), device
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 it lives as long as this does
        reserve(self._file, 4 * self.shape.numel())

    def __getitem__(self, index: Index) -> Tensor:
        return torch.from_numpy(self._mapped()[index].copy()).to(self.device)

    def __setitem__(self, index: Index, values: Tensor) -> None:
        # Written, not mapped: a disk that is full answers a write with an error, and a store with the process's end.
        height, width = self.shape[-2:]
        (top, bottom, _), (left, right, _) = index[1].indices(height), index[2].indices(width)
        planes = values.detach().to("cpu", torch.float32).expand(*self.shape[:2], bottom - top, right - left)
        for plane, rows in enumerate(planes.reshape(-1, bottom - top, right - left).numpy()):
            for row, numbers in enumerate(rows, top):
                self._file.seek(4 * ((plane * height + row) * width + left))
                self._file.write(numbers.tobytes())
        self._file.flush()

    def __del__(self) -> None:
        self._file.close()

    def _mapped(self) -> npt.NDArray[np.float32]:
        return np.memmap(self._file, np.float32, "r", shape=tuple(self.shape))


def reserve(file: Any, size: int) -> None:
    """Make an open binary file so many bytes long, and have the disk keep room for them where it can.

    Raises:
        OSError: there is no room.
    """
    file.truncate(size)
    if size and hasattr(os, "posix_fallocate"):  # Linux; elsewhere a full disk shows when it is written
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # a file system that cannot
                raise


def bands(height: int, rows: int) -> Iterator[tuple[int, int]]:
    """(top, bottom) of the bands of at most ``rows`` rows that a picture of this height is worked through in."""
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


class LazyArray:
    """Windows of (B, C, H, W) computed when they are asked for, by a function of (top, bottom, left, right)."""

    def __init__(self, shape: tuple[int, ...], compute: Callable[[int, int, int, int], Tensor]) -> None:
        self.shape, self._compute = torch.Size(shape), compute

    def __getitem__(self, index: Index) -> Tensor:
        (top, bottom, _), (left, right, _) = (
            part.indices(length) for part, length in zip(index[1:], self.shape[-2:], strict=True)
        )
        return self._compute(top, bottom, left, right)
