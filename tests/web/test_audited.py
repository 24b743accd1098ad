"""What was invented, shown over a result and said below it: by pointer and by keys, in both languages."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from chromium import PHONE, WIDE
from service import patient
from service.serving import QUICK, picture
from supir.options.audit import AuditOptions
from web.conftest import Visit
from web.site import WebServer, choose, described, gradient, layer, open_photo, painted, pixels, variants
from web.test_accessible import violations

ASKED: dict[str, Any] = {
    **QUICK, "audit": True, "letters": False, "likeness": False, "max_invented": 0, "max_contradictions": 0,
}  # fmt: skip


def audited(server: WebServer, **more: Any) -> dict[str, Any]:
    """A photo of noise with a result that was audited, and found to be past a limit."""
    photo = server.submit(picture(3, 96, 64))
    answer = server.again(photo["id"], **{**ASKED, **more})
    assert answer.status_code == 202, answer.text
    return server.ended(answer.json()["id"])


def opened(page: Page, text: str) -> None:
    page.get_by_role("button", name=re.compile(text)).first.click()
    painted(page)


def test_from_the_switch_to_the_layer(server: WebServer, visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient())
    limits = page.get_by_role("group", name="Limits for what is invented")
    expect(limits.get_by_role("spinbutton", name="Invented at most")).to_be_disabled()
    page.get_by_role("checkbox", name="Show what was invented").check()
    expect(limits.get_by_role("spinbutton", name="Invented at most")).to_be_enabled()
    page.locator("#fields [name=letters]").uncheck()
    likeness = page.locator("#fields [name=likeness]")
    offered = likeness.is_enabled()  # where dlib is installed
    if offered:
        likeness.uncheck()
    choose(page, max_invented=0.5, seeds=1)
    page.locator("#fields [name=on_doubt]").select_option("blend")
    expect(page.locator("#invented")).to_be_hidden()
    page.locator("#restore").click()
    expect(page.locator(".audited .said")).to_be_visible()
    job = server.jobs()[0]
    expected = AuditOptions(letters=False, likeness=not offered, max_invented=0.5, on_doubt="blend")
    assert job["audit_options"] == vars(expected)
    for kind in ("kept", "reconstructed", "invented"):
        said = page.locator(f".legend .{kind}").inner_text()
        assert float(re.sub(r"[^\d.]", "", said)) == pytest.approx(100 * job["audit"][kind], abs=0.51)
    expect(page.locator(".said")).to_contain_text(
        "letters were not read; faces were not compared; without a guarantee (another model made"
    )
    page.get_by_role("button", name="Invented", exact=True).click()
    expect(page.locator(".tag.right").first).to_have_text("What was invented")
    painted(page)
    overlay = patient.get(f"{server.url}/v1/jobs/{job['id']}/audit/overlay").content
    np.testing.assert_array_equal(
        pixels(layer(page, "audit")), np.asarray(Image.open(io.BytesIO(overlay)).convert("RGB"))
    )
    assert layer(page, "audit").bounding_box() == layer(page, "after").bounding_box()
    assert violations(page) == []
    page.keyboard.press("i")
    expect(layer(page, "audit")).to_have_count(0)
    expect(page.locator(".tag.right").first).to_have_text("After")
    page.locator("#restore").click()  # the same request
    expect(page.get_by_role("alert")).to_contain_text("was there already")


@pytest.mark.slow
def test_past_a_limit_is_said_in_both_languages(server: WebServer, visit: Visit) -> None:
    job = audited(server, on_doubt="preview")
    page = visit()
    expect(page.locator(".passed")).to_have_text(
        f"Past a limit: {'; '.join(job['audit']['past_limits'])}. The clean preview is the result in its place."
    )
    page.get_by_role("button", name="Use settings").click()
    assert page.get_by_role("checkbox", name="Show what was invented").is_checked()
    assert page.locator("#fields [name=max_invented]").input_value() == "0"
    assert page.locator("#fields [name=on_doubt]").input_value() == "preview"
    page.locator("#language").select_option("ko")
    expect(page.locator(".passed strong")).to_have_text("한도를 넘음:")
    expect(page.locator(".legend .kept")).to_contain_text("그대로")
    expect(page.locator(".said")).to_contain_text("글자를 읽지 않음")
    expect(page.locator(".passed [lang=en]")).to_have_text("; ".join(job["audit"]["past_limits"]))


@pytest.mark.slow
@pytest.mark.parametrize("screen", ["wide", "phone"])
def test_beside_a_result_that_was_not_audited(server: WebServer, visit: Visit, screen: str) -> None:
    photo = audited(server)["source"]
    server.ended(server.again(photo).json()["id"])
    page = visit(**{"wide": WIDE, "phone": PHONE}[screen])
    expect(page.locator("#invented")).to_be_hidden()  # the last result is open
    opened(page, ", audited")
    before = page.locator(".pane:visible").bounding_box()
    page.locator("#invented").click()
    expect(layer(page, "audit")).to_be_visible()
    assert page.locator(".pane:visible").bounding_box() == before
    whole, seen = layer(page, "after").bounding_box(), page.locator(".pane:visible").bounding_box()
    assert whole
    assert seen
    assert whole["y"] >= seen["y"]
    assert whole["y"] + whole["height"] <= seen["y"] + seen["height"], "the picture fits above what is said of it"
    assert violations(page) == []
    page.locator(".frame .add:visible").last.click()
    expect(variants(page)).to_have_count(2)
    heights = [variants(page).nth(k).locator(".pane").bounding_box()["height"] for k in range(2)]  # type: ignore[index]
    assert heights[0] == heights[1]
    assert sum(layer(page, "audit", k).count() for k in range(2)) == 1
    assert violations(page) == []
    expect(described(page, 0)).to_be_visible()
