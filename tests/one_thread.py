"""One thread for torch while tests run: bytes can be compared, and tiny networks gain nothing from a second."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def one_thread_in_processes_too() -> Iterator[pytest.MonkeyPatch]:
    """Also of the processes that the tests start, which find the package and the tests' modules."""
    with one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join(str(Path(__file__).parents[1] / name) for name in ("src", "tests")))
        yield patch
