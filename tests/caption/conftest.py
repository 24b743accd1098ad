"""A tiny model, a tiny LLaVA, a cache folder of the test's own, and one thread, so that bytes can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from caption.chat_server import ChatServer
from caption.tiny_captioners import save_tiny_llava
from one_thread import one_thread_in_processes_too
from supir.caption.endpoint import KEY_VARIABLE
from tiny import save_tiny_model


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread_in_processes_too() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("captioner") / "llava")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where captions are kept; nothing is there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return tmp_path / "cache" / "supir" / "captions"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running
