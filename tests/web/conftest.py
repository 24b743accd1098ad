"""A tiny model, a server for all tests of the page, and a page that complains of nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from chromium import WIDE, chromium
from one_thread import one_thread
from tiny import save_tiny_model
from web.site import WebServer

Visit = Callable[..., Page]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="session")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    running = WebServer(tmp_path_factory.mktemp("web"), model, "--megabytes", 1, "--megapixels", 1)
    try:
        running.ready()
        yield running
    finally:
        ended = running.stop()
    assert ended == 0
    assert running.lines("mistake of ours") == []


@pytest.fixture(scope="module")  # not longer: its event loop is in the way of others
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture
def visit(server: WebServer, browser: Browser) -> Iterator[Visit]:
    """Opens the page, and reads what it complains of."""
    contexts, complaints = [], []

    def opened(url: str = "", script: str = "", **options: Any) -> Page:
        contexts.append(browser.new_context(**{**WIDE, **options}))
        contexts[-1].add_init_script(script)
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
        page.goto(url or server.url)
        page.locator("#presets input").first.wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    for job in server.jobs():  # the next test begins with an empty history
        server.delete(job["id"])
