"""Two people, or two tabs, at one page; several files that are refused; a browser that keeps nothing."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from service import patient
from service.serving import LONG, picture, until
from web.conftest import Visit
from web.site import WebServer, choose, described, file, gradient, open_photo, painted

pytestmark = pytest.mark.slow  # minutes in a browser; the way through the page is in test_page.py

LEFT = "dispatchEvent(new Event('pagehide'))"
"""As when the page is left: what was removed cannot be taken back any more."""
DENIED = """for (const name of ['localStorage', 'sessionStorage', 'indexedDB', 'caches'])
    Object.defineProperty(window, name, {get() { throw new DOMException('denied', 'SecurityError'); }});"""


def frames(page: Page, *names: str) -> None:
    """The history shows these alone."""
    expect(page.locator(".frame")).to_have_count(len(names))
    for name in names:
        expect(page.get_by_role("button", name=name, exact=True)).to_be_visible()


def test_what_one_tab_does_the_other_sees(server: WebServer, visit: Visit) -> None:
    photo = server.submit(picture(1), "old.png")["id"]
    made = server.ended(server.again(photo, seed=1).json()["id"])["id"]
    one, other = visit(), visit()
    for page in (one, other):
        frames(page, "old.png, Clean preview", "old.png, seed 1")
        page.get_by_role("button", name="old.png, seed 1").click()
        painted(page)
    one.wait_for_timeout(2500)  # so that nobody takes the jobs for ones that have just ended
    one.get_by_role("button", name="Remove", exact=True).click()
    one.evaluate(LEFT)
    for page in (one, other):
        frames(page, "old.png, Clean preview")
        expect(described(page)).to_have_text("Clean preview")  # in place of what was deleted
    assert made not in [job["id"] for job in server.jobs()]
    open_photo(one, gradient(), "new.png")
    frames(other, "old.png, Clean preview", "new.png, Clean preview")
    long = server.again(photo, **LONG).json()["id"]
    other.get_by_role("button", name="old.png, seed 0, at work").click()
    other.get_by_role("button", name="Cancel", exact=True).last.click()
    for page in (one, other):
        frames(page, "old.png, Clean preview", "new.png, Clean preview")
    assert server.get(long)["state"] == "cancelled"
    server.kill()  # and what happens while a tab hears nothing
    server.start()
    other.route("**/v1/events", lambda route: route.abort())
    server.ready()
    server.delete(photo)
    frames(one, "new.png, Clean preview")
    other.unroute("**/v1/events")
    frames(other, "new.png, Clean preview")


def test_each_refused_file_is_named(server: WebServer, visit: Visit) -> None:
    page = visit()
    choose(page, min_size=64, scale=1)
    refused = [("bad.jpg", b"GIF89a" + b"0" * 99), ("huge.png", b"\0" * 1_500_000), ("empty.png", b"")]
    files = [file(data, name) for name, data in refused]
    page.locator("#file").set_input_files([*files, file(gradient(), "good.png")])
    said = page.get_by_role("alert").locator("p")
    expect(said).to_have_count(3)
    for number, begins in enumerate(("bad.jpg: a GIF", "huge.png: the picture has more than 1 mega", "empty.png: an")):
        expect(said.nth(number)).to_contain_text(begins)
    frames(page, "good.png, Clean preview")
    painted(page)
    expect(said).to_have_count(3)  # and what went well hides nothing
    page.get_by_role("button", name="Close the message").click()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_browser_that_keeps_nothing(server: WebServer, visit: Visit) -> None:
    page = visit(script=DENIED)
    assert page.evaluate("(() => { try { localStorage; } catch (error) { return error.name; } })()") == "SecurityError"
    open_photo(page, gradient(), "seen.png")
    frames(page, "seen.png, Clean preview")
    page.goto("about:blank")
    page.goto(f"{server.url}/#key=supir_unneeded")
    page.reload()
    expect(page.locator("#presets input").first).to_be_visible()
    assert page.url.endswith("#key=supir_unneeded")  # which is nowhere else
    frames(page, "seen.png, Clean preview")


def test_a_queued_picture_says_what_it_waits_for(server: WebServer, visit: Visit) -> None:
    """Of a cancelled one that its worker has not left yet."""
    page = visit()
    open_photo(page, gradient())
    photo = server.jobs()[0]["id"]
    long = server.again(photo, **LONG).json()["id"]
    until(lambda: (server.get(long)["step"] or 0) > 0)
    [worker] = [child for child in server.children() if "spawn_main" in " ".join(child.cmdline())]
    worker.suspend()
    try:
        patient.post(f"{server.url}/v1/jobs/{long}/cancel")
        page.locator("#restore").click()
        expect(described(page)).to_contain_text(" · waiting for the worker to leave a cancelled picture")
    finally:
        worker.resume()
    expect(page.locator(".tag.right").first).to_have_text("After")
