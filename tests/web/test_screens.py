"""The page on a phone and on a wide screen, in the dark and in the light, and without a pointer."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from chromium import PHONE, WIDE, touch
from service.serving import QUICK, until
from web.conftest import Visit
from web.screenshots import take
from web.site import WebServer, gradient, layer, open_photo, scale, variants

pytestmark = pytest.mark.slow  # minutes in a browser; the way through the page is in test_page.py

ROOT = Path(__file__).parents[2]

OVERFLOW = """[...document.querySelectorAll('body *')].filter(each => {
    const {right, left, width} = each.getBoundingClientRect();
    return width && (right > innerWidth + 1 || left < -1) && !each.closest('#history, .pane, .unseen');
}).map(each => each.outerHTML.slice(0, 80))"""
NAMELESS = """[...document.querySelectorAll('button, input, select, textarea, [role=slider]')].filter(each => {
    const labels = [...each.labels ?? []].map(label => label.textContent).join('');
    return !(labels || each.getAttribute('aria-label') || each.textContent).trim();
}).map(each => each.outerHTML)"""


def fits(page: Page) -> None:
    """Nothing sticks out, and the page itself does not scroll."""
    root = "document.documentElement"
    assert page.evaluate(f"[{root}.scrollWidth <= innerWidth, {root}.scrollHeight <= innerHeight]") == [True, True]
    assert page.evaluate(OVERFLOW) == []


def test_a_phone(visit: Visit) -> None:
    page = visit(**PHONE)
    fits(page)
    open_photo(page, gradient(240, 160), num_steps=1)
    fits(page)
    for name in ("Restore", "Before", "Fit", "100 %", "Download"):
        box = page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 40, name
    stage, panel = (page.locator(each).bounding_box() for each in ("#stage", "#panel"))
    assert stage is not None
    assert panel is not None
    assert (stage["x"], stage["width"]) == (0, 390)
    assert stage["y"] + stage["height"] <= panel["y"]
    assert stage["height"] >= 300
    fingers = page.context.new_cdp_session(page)
    handle = page.get_by_role("slider", name="Before and after")
    box = handle.bounding_box()
    assert box is not None
    x, y, fitted = box["x"] + 22, box["y"] + box["height"] / 2, scale(page)
    touch(fingers, "touchStart", (x, y))
    touch(fingers, "touchMove", (x - 100, y))
    touch(fingers, "touchEnd")
    expect(handle).to_have_attribute("aria-valuenow", str(round((195 - 100) / 3.9)))
    assert scale(page) == fitted
    touch(fingers, "touchStart", (150, y), (200, y))
    touch(fingers, "touchMove", (125, y), (225, y))
    touch(fingers, "touchEnd")
    until(lambda: scale(page) == pytest.approx(2 * fitted, rel=0.02))
    page.get_by_role("radio", name="4", exact=True).check()
    page.get_by_role("button", name="Restore").tap()
    expect(page.locator(".variant[data-state=done]:visible")).to_have_count(4)
    fits(page)
    for k in range(4):
        picture, pane = layer(page, "after", k).bounding_box(), variants(page).nth(k).bounding_box()
        assert picture is not None
        assert pane is not None
        assert min(pane["width"], pane["height"]) > 90
    page.set_viewport_size({"width": 844, "height": 390})  # turned
    until(lambda: page.evaluate("innerWidth") == 844)
    fits(page)
    expect(page.get_by_role("button", name="Restore")).to_be_in_viewport()


def test_a_wide_screen(visit: Visit) -> None:
    page = visit(**WIDE)
    fits(page)
    open_photo(page, gradient(240, 160))
    fits(page)
    panel, picture = page.locator("#panel").bounding_box(), layer(page, "after").bounding_box()
    assert panel is not None
    assert picture is not None
    assert picture["width"] >= 0.6 * 1440  # the picture comes first
    assert picture["x"] + picture["width"] <= panel["x"]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_grey_in_the_dark_and_in_the_light(visit: Visit, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    read = "name => getComputedStyle(document.querySelector(name))"
    back, surround, text = (
        page.evaluate(f"({read}('{name}')).{what}".replace(read, f"({read})"))
        for name, what in (("body", "backgroundColor"), ("#stage", "backgroundColor"), ("body", "color"))
    )
    levels = []
    for colour in (back, surround, text):
        red, green, blue = (int(part) for part in colour[4:-1].split(","))
        assert red == green == blue, "no tint beside a photograph"
        levels.append(red)
    assert (levels[0] < 64 < 192 < levels[2]) if scheme == "dark" else (levels[2] < 64 < 192 < levels[0])


def test_without_a_pointer(visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient())
    assert page.evaluate(NAMELESS) == []
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(({id, name, className}) => id || name || className)(document.activeElement)"))
    assert {"file", "hold", "fit", "actual", "handle", "preset", "option-prompt", "restore", "open"} <= reached
    page.keyboard.press("Control+Enter")
    expect(page.locator(".tag.right").first).to_have_text("After")
    page.locator("#keys-button").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.locator("#fields [name=prompt]").focus()
    before = scale(page)
    page.keyboard.type("z0+b?")  # letters, where letters are typed
    assert page.locator("#fields [name=prompt]").input_value() == "z0+b?"
    assert scale(page) == before


def test_the_pictures_for_the_documents(server: WebServer, visit: Visit, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(gradient())
    made = take(server.url, browser, tmp_path, tmp_path / "photo.png", {**QUICK, "num_steps": 1, "seed": 7})
    assert [Image.open(path).size for path in made] == [(1440, 900), (780, 1688)]
    for path in (ROOT / "docs").glob("web-*"):
        assert path.stat().st_size < 300_000
