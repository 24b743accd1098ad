"""The page, the interface and a study behind a real reverse proxy that shows them under a path."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from cli.study_process import NUM_QUESTIONS, StudyServer
from service import patient
from service.serving import QUICK, picture
from supir.client import Client
from web.conftest import Visit
from web.proxy import proxy
from web.site import WebServer, choose, described, gradient, layer, open_photo, painted, pixels

pytestmark = pytest.mark.slow  # minutes in a browser; the way through the page is in test_page.py


def from_photo_to_download(page: Page) -> bytes:
    """All that the page asks a server for; the downloaded file."""
    expect(page.locator("#status")).to_have_text("ready", timeout=120_000)
    open_photo(page, gradient(), "seen.png")
    page.locator("#restore").click()
    expect(page.locator(".tag.right").first).to_have_text("After")
    painted(page)
    assert pixels(layer(page, "after")).shape == (64, 96, 3)
    expect(page.locator(".frame img")).to_have_count(2)  # thumbnails
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download").click()
    data = Path(downloading.value.path()).read_bytes()
    choose(page, num_steps=1000)
    page.locator("#restore").click()
    page.get_by_role("button", name="Cancel", exact=True).last.click()
    expect(described(page)).to_contain_text("· cancelled")
    page.get_by_role("button", name="seen.png, seed 0", exact=True).click()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator(".frame")).to_have_count(1)
    return data


def test_a_path_that_the_proxy_takes_off(server: WebServer, visit: Visit) -> None:
    """The server is told nothing, and need not be."""
    with proxy(server.url, "/photos", strips=True) as url:
        page = visit(f"{url}/")
        outside: list[str] = []
        page.on("request", lambda request: outside.append(request.url) if "/photos/" not in request.url else None)
        assert from_photo_to_download(page)[:4] == b"\x89PNG"
        assert [address for address in outside if not address.startswith("blob:")] == []
        with Client(url) as client:
            job = client.wait(client.submit(picture(3), **QUICK))
            assert client.result(job)[:4] == b"\x89PNG"
            assert [event.kind for event in client.events(job)] == ["done"]
        files = {"file": ("a.png", picture())}
        answer = patient.post(f"{url}/v1/jobs", files=files, data={"until": "preview", "min_size": 64})
        found = patient.get(answer.url.join(answer.headers["Location"]))
        assert (found.status_code, found.json()["id"]) == (200, answer.json()["id"])


@pytest.mark.parametrize("strips", [True, False])
def test_a_path_that_the_server_is_told(told: WebServer, visit: Visit, strips: bool) -> None:
    """By a proxy that asks under a host name of its own, and is trusted; without a slash at the end, and with a key."""
    address, _, key = told.address.partition("#")
    assert address.endswith("/deep/photos/")
    with proxy(address.removesuffix("/deep/photos/"), "/deep/photos", strips=strips, own_host=True) as url:
        page = visit(f"{url}{'/' if strips else ''}#{key}")
        assert page.url == f"{url}/"  # and the key is out of sight
        assert from_photo_to_download(page)[:4] == b"\x89PNG"
        page.reload()
        expect(page.get_by_role("button", name="seen.png, clean preview")).to_be_visible()  # it knows its key still
        stored = page.evaluate("Object.keys(localStorage)")
        assert stored == ["supir-key /deep/photos/"]  # or another supir of this host would be given this key
        headers = {"Authorization": f"Bearer {key.removeprefix('key=')}"}
        assert patient.get(f"{url}/openapi.json", headers=headers).json()["servers"] == [{"url": "/deep/photos"}]
        assert patient.get(f"{url}/v1/jobs").status_code == 401
        for job in patient.get(f"{url}/v1/jobs", headers=headers).json()["jobs"]:
            assert patient.delete(f"{url}/v1/jobs/{job['id']}", headers=headers).status_code == 204


@pytest.fixture(scope="module")
def told(model: Path, tmp_path_factory: pytest.TempPathFactory) -> WebServer:
    flags = ("--root-path", "/deep/photos", "--trusted-proxies", "127.0.0.1")
    running = WebServer(tmp_path_factory.mktemp("path"), model, *flags)
    yield running
    assert running.stop() == 0
    assert running.lines("mistake of ours") == []


@pytest.mark.parametrize("strips", [True, False])
def test_a_study_under_a_path(browser: object, tmp_path: Path, strips: bool) -> None:
    server = StudyServer(tmp_path, *([] if strips else ["--root-path", "/ask"]))
    try:
        with proxy(server.url.rstrip("/").removesuffix("/ask"), "/ask", strips=strips) as url:
            with browser.new_context() as context:  # type: ignore[attr-defined]
                page = context.new_page()
                page.goto(f"{url}/" if strips else url)
                page.get_by_role("button", name="Start").click()
                for number in range(1, NUM_QUESTIONS + 1):
                    expect(page.locator("#count")).to_have_text(f"{number} of {NUM_QUESTIONS}")
                    expect(page.locator(".pane img").first).to_be_visible()
                    page.locator("[data-place='0']").click()
                expect(page.locator("#message")).to_contain_text("Thank you!")
            assert patient.head(f"{url}/state").status_code == 200
            assert patient.get(f"{url}/state", headers={"Host": "[::1"}).status_code == 400
    finally:
        server.kill()
