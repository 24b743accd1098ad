"""What is looked at closely before there is a result: the clean preview of that part, as large as in the result."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Request, expect

from chromium import WIDE
from service import patient
from service.serving import until
from web.conftest import Visit
from web.site import WebServer, choose, gradient, layer, open_photo, painted, pixels
from web.test_accessible import violations

pytestmark = pytest.mark.slow  # minutes in a browser; the way through the page is in test_page.py

SMALL: dict[str, Any] = {"viewport": {"width": 1000, "height": 600}, "screen": {"width": 600, "height": 400}}
"""So the whole's preview is small, and so is what is seen."""


def parts(server: WebServer) -> list[dict[str, Any]]:
    return [job for job in server.jobs() if job["crop"]]


def rested(page: Page) -> None:
    """Longer than a view rests before anything is asked for."""
    page.wait_for_timeout(900)


@pytest.mark.parametrize(
    ("width", "height", "factor", "device"),
    [(1400, 100, 1, SMALL), (2400, 400, 2, WIDE)],
    ids=["all that is seen", "the middle of it"],
)
def test_what_is_looked_at_closely_is_made_at_full_size_once(
    server: WebServer, visit: Visit, width: int, height: int, factor: int, device: dict[str, Any]
) -> None:
    page, asked = visit(**device), list[str]()

    def count(request: Request) -> None:
        asked.extend([request.url] * ("/again" in request.url))

    page.on("request", count)
    open_photo(page, gradient(width, height), scale=factor)
    rested(page)
    assert (asked, parts(server)) == ([], [])  # the whole is seen
    page.locator("#actual").click()
    tag, sheet = page.locator(".tag.right").first, layer(page, "closer")
    expect(tag).to_have_text("Clean preview at full size")
    expect(sheet).to_have_count(1)
    [job] = parts(server)
    left, top, wide, high = job["crop"]
    assert (left * factor % 256, top * factor % 256, job["options"]["scale"]) == (0, 0, factor)
    assert min(width * height / 3, 0.5 * 640 * 640) < wide * high * factor**2 <= 640 * 640
    # It lies where the photo has that part, and its pixels are the service's.
    photo, box = layer(page, "after").bounding_box(), sheet.bounding_box()
    assert photo is not None
    assert box is not None
    place = [box["x"] - photo["x"], box["y"] - photo["y"], box["width"], box["height"]]
    np.testing.assert_allclose(place, [left, top, wide, high], atol=0.1)
    data = patient.get(f"{server.url}/v1/jobs/{job['id']}/result").content
    np.testing.assert_array_equal(pixels(sheet), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert pixels(sheet).shape == (high * factor, wide * factor, 3)
    assert violations(page) == []
    expect(page.locator(".frame")).to_have_count(1)  # in the history it is no picture of its own
    # Elsewhere another is made; back again nothing is asked for.
    page.mouse.move(450, 300)
    page.mouse.down()
    page.mouse.move(150, 300, steps=4)
    page.mouse.up()
    expect(sheet).to_have_count(2)
    assert len(asked) == len(parts(server)) == 2
    page.mouse.move(150, 300)
    page.mouse.down()
    page.mouse.move(450, 300, steps=4)
    page.mouse.up()
    rested(page)
    expect(tag).to_have_text("Clean preview at full size")
    assert len(asked) == len(parts(server)) == 2
    # Beside a result it is not seen; with its photo it goes.
    choose(page, scale=0.1)
    page.locator("#restore").click()
    expect(page.locator(".tag.right").first).to_have_text("After")
    painted(page)
    expect(sheet).to_have_count(0)
    page.get_by_role("button", name="photo.png, Clean preview").click()
    expect(page.locator("[data-do=remove]").first).to_be_visible()
    page.locator("[data-do=remove]").first.click()
    page.reload()
    until(lambda: server.jobs() == [])
