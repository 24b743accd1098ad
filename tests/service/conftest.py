"""What the tests of the service share: a tiny model, a server, and one thread, so that bytes can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from one_thread import one_thread
from service.serving import Server
from tiny import save_tiny_model
from weights.tiny_files import tiny_lora


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="session")
def pipeline(model: Path) -> Any:
    from supir.pipeline import SupirPipeline

    loaded = SupirPipeline.from_pretrained(model)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="session")
def loras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a client may name: one that fits, and one that does not."""
    folder = tmp_path_factory.mktemp("loras") / "offered"
    tiny_lora(folder.parent / "secret.safetensors")
    tiny_lora(folder / "style.safetensors")
    tiny_lora(folder / "sd1.safetensors", text_width=768)
    return folder


@pytest.fixture(scope="session")
def server(model: Path, loras: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without keys."""
    limits = ("--megabytes", 1, "--megapixels", 1)
    running = Server(tmp_path_factory.mktemp("service"), model, *limits, "--loras", loras)
    yield running
    assert running.stop() == 0
    assert running.lines("mistake of ours") == []
