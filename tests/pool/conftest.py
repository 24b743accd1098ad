"""One thread, and processes and Ray's workers that find the package and the tests' modules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from one_thread import one_thread_in_processes_too


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread_in_processes_too():
        yield
