"""What is painted on a photo is protected, or alone treated, to the bit: by pointer, by fingers and by keys."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import FloatRect, Page, expect

from chromium import PHONE, touch
from service import patient
from service.serving import until
from supir.options.regions import INLINE
from web.conftest import Visit
from web.site import WebServer, choose, gradient, layer, open_photo, painted, pixels, scale
from web.test_accessible import violations
from web.test_screens import fits

WIDTH, HEIGHT = 96, 64
PHOTO = np.asarray(Image.open(io.BytesIO(gradient(WIDTH, HEIGHT))))


def place(page: Page) -> FloatRect:
    """Where the photo is on the screen."""
    box = layer(page, "after").bounding_box()
    assert box is not None
    return box


def stroke(page: Page, *points: tuple[float, float]) -> None:
    """With the mouse, by shares of the photo's sides."""
    box = place(page)
    for number, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=1 if number == 0 else 5)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def mask(region: str) -> np.ndarray[Any, Any]:
    """White where a request's mask is."""
    data = base64.b64decode(region.removeprefix(INLINE).rpartition(";")[0])
    found = Image.open(io.BytesIO(data))
    assert found.mode == "1"
    assert found.size == (WIDTH, HEIGHT)
    return np.asarray(found)


def restored(server: WebServer, page: Page) -> dict[str, Any]:
    page.locator("#restore").click()
    expect(page.locator(".tag.right").first).to_have_text("After")
    painted(page)
    return server.jobs()[0]


def changed(page: Page) -> np.ndarray[Any, Any]:
    """Where what Chromium shows of the result is another pixel than the photo's."""
    return (pixels(layer(page, "after")) != PHOTO).any(-1)


def test_what_is_painted_is_protected_and_the_rest_is_restored(server: WebServer, visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient(WIDTH, HEIGHT))
    page.locator("#brush").click()
    expect(page.locator("#brush")).to_have_attribute("aria-pressed", "true")
    assert violations(page) == []
    page.locator("[name=brush-size]").fill("90")
    stroke(page, (0.2, 0.3), (0.4, 0.3))
    expect(page.locator("#painted")).to_have_text("What is painted is protected")
    job = restored(server, page)
    expect(page.locator("#brushes")).to_be_hidden()  # it was laid down
    kept = mask(job["options"]["region"])
    assert job["options"]["region"].endswith("; protect")
    assert 0.02 < kept.mean() < 0.4
    assert kept[round(0.3 * HEIGHT), round(0.2 * WIDTH) : round(0.4 * WIDTH)].all()
    assert not changed(page)[kept].any()
    assert changed(page)[:, WIDTH // 2 :].mean() > 0.9
    expect(page.locator(".what").first).to_contain_text("Places with rules of their own painted; protect")
    # What it was made with comes back, and is the same request.
    page.locator("#brush").click()
    page.locator("#brush-clear").click()
    expect(page.locator("#painted")).to_be_hidden()
    page.get_by_role("button", name="Use settings").click()
    expect(page.locator("#painted")).to_have_text("What is painted is protected")
    assert page.locator("#fields [name=region]").input_value() == ""
    page.locator("#restore").click()
    expect(page.get_by_role("alert")).to_contain_text("was there already")
    notice = patient.post(f"{server.url}/v1/results", json={"jobs": [job["id"]], "notice": True}).content
    assert b"...; protect" in notice


@pytest.mark.slow
def test_only_what_is_painted_is_treated_and_strokes_are_taken_back(server: WebServer, visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient(WIDTH, HEIGHT))
    choose(page, region_edge=0)
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("p")
    page.locator("label", has_text="Treat only").click()
    page.locator("[name=brush-size]").fill("60")
    stroke(page, (0.3, 0.5), (0.7, 0.5))
    stroke(page, (0.1, 0.1), (0.2, 0.1))
    page.locator("#brush-undo").click()
    page.locator("label", has_text="Erase").click()
    stroke(page, (0.6, 0.5), (0.7, 0.5))
    expect(page.locator("#painted")).to_have_text("Only what is painted is treated")
    job = restored(server, page)
    treated = mask(job["options"]["region"])
    assert job["options"]["region"].endswith("; only")
    assert treated[HEIGHT // 2, round(0.35 * WIDTH)]
    assert not treated[HEIGHT // 2, round(0.65 * WIDTH)], "erased"
    assert not treated[round(0.1 * HEIGHT), round(0.15 * WIDTH)], "taken back"
    assert not changed(page)[~treated].any()
    assert changed(page)[treated].mean() > 0.5


def test_by_keys(visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient(WIDTH, HEIGHT))
    page.locator("h1").click()
    page.keyboard.press("p")
    sheet = page.get_by_role("application", name="Nothing is painted")
    expect(sheet).to_be_focused()
    before = page.locator("[name=brush-size]").input_value()
    page.keyboard.press("]")
    assert int(page.locator("[name=brush-size]").input_value()) > int(before)
    page.keyboard.press("Space")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    expect(page.locator("#painted")).to_have_text("What is painted is protected")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    expect(page.locator("#painted")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("#brush")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#brush")).to_be_focused()


@pytest.mark.slow
def test_by_fingers(visit: Visit) -> None:
    page = visit(**PHONE, locale="ko-KR")
    open_photo(page, gradient(240, 160))
    page.locator("#brush").tap()
    fits(page)
    fingers, box, fitted = page.context.new_cdp_session(page), place(page), scale(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch(fingers, "touchStart", (x - 50, y))
    touch(fingers, "touchStart", (x - 50, y), (x + 50, y))  # a second finger: no stroke, but zoom
    touch(fingers, "touchMove", (x - 75, y), (x + 75, y))
    touch(fingers, "touchEnd")
    until(lambda: scale(page) == pytest.approx(1.5 * fitted, rel=0.05))
    expect(page.locator("#brush-undo")).to_be_disabled()
    touch(fingers, "touchStart", (x - 50, y))
    touch(fingers, "touchMove", (x + 50, y))
    touch(fingers, "touchEnd")
    expect(page.locator("#painted")).to_be_visible()
    assert scale(page) == pytest.approx(1.5 * fitted, rel=0.05)
    assert violations(page) == []
