"""What the tests of the batch share: a tiny model folder, an album, and one thread, so that bytes can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.pictures import Finished, album, finish
from one_thread import one_thread_in_processes_too
from tiny import save_tiny_model


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread_in_processes_too():
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model."""
    return save_tiny_model(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="session")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An album and what a run that nothing interrupts makes of it."""
    where = tmp_path_factory.mktemp("finished")
    return finish(album(where / "album"), where / "out", folder)
