"""What is looked at closely before there is a result: the clean preview of that part, as large as in the result."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, Request, expect

from service import patient
from service.serving import until
from web.conftest import Visit
from web.site import WebServer, gradient, layer, open_photo, painted, pixels
from web.test_accessible import violations

WIDTH, HEIGHT, SCALE = 2400, 400, 2.0


def parts(server: WebServer) -> list[dict[str, Any]]:
    return [job for job in server.jobs() if job["crop"]]


def rested(page: Page) -> None:
    """Longer than a view rests before anything is asked for."""
    page.wait_for_timeout(900)


def test_what_is_looked_at_closely_is_made_at_full_size_once(server: WebServer, visit: Visit) -> None:
    page, asked = visit(), list[str]()

    def count(request: Request) -> None:
        asked.extend([request.url] * ("/again" in request.url))

    page.on("request", count)
    open_photo(page, gradient(WIDTH, HEIGHT), scale=SCALE)
    rested(page)
    assert (asked, parts(server)) == ([], [])  # the whole is seen
    page.locator("#actual").click()
    tag, sheet = page.locator(".tag.right").first, layer(page, "closer")
    expect(tag).to_have_text("Clean preview at full size")
    expect(sheet).to_have_count(1)
    [job] = parts(server)
    left, top, width, height = job["crop"]
    assert (left % 128, top % 128, job["options"]["scale"]) == (0, 0, SCALE)
    assert width * height * SCALE**2 <= 768 * 768
    # It lies where the photo has that part, and its pixels are the service's.
    photo, box = layer(page, "after").bounding_box(), sheet.bounding_box()
    assert photo is not None
    assert box is not None
    place = [box["x"] - photo["x"], box["y"] - photo["y"], box["width"], box["height"]]
    np.testing.assert_allclose(place, [left, top, width, height], atol=0.1)
    data = patient.get(f"{server.url}/v1/jobs/{job['id']}/result").content
    np.testing.assert_array_equal(pixels(sheet), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert pixels(sheet).shape == (height * SCALE, width * SCALE, 3)
    assert violations(page) == []
    expect(page.locator(".frame")).to_have_count(1)  # in the history it is no picture of its own
    # Elsewhere another is made; back again nothing is asked for.
    page.mouse.move(500, 400)
    page.mouse.down()
    page.mouse.move(100, 400, steps=4)
    page.mouse.up()
    expect(sheet).to_have_count(2)
    assert len(asked) == len(parts(server)) == 2
    page.mouse.move(100, 400)
    page.mouse.down()
    page.mouse.move(500, 400, steps=4)
    page.mouse.up()
    rested(page)
    expect(tag).to_have_text("Clean preview at full size")
    assert len(asked) == len(parts(server)) == 2
    # Beside a result it is not seen; with its photo it goes.
    page.locator("#restore").click()
    expect(page.locator(".tag.right").first).to_have_text("After")
    painted(page)
    expect(sheet).to_have_count(0)
    page.get_by_role("button", name="photo.png, Clean preview").click()
    expect(page.locator("[data-do=remove]").first).to_be_visible()
    page.locator("[data-do=remove]").first.click()
    page.reload()
    until(lambda: server.jobs() == [])
