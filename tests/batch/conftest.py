"""What the tests of the batch share: a tiny model folder, an album, and one thread, so that bytes can be compared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from batch.pictures import Finished, album, finish
from tiny import save_tiny_model


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # of the processes that the tests start
        patch.setenv("PYTHONPATH", os.pathsep.join(str(Path(__file__).parents[2] / name) for name in ("src", "tests")))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model."""
    return save_tiny_model(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="session")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An album and what a run that nothing interrupts makes of it."""
    where = tmp_path_factory.mktemp("finished")
    return finish(album(where / "album"), where / "out", folder)
