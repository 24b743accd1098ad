"""What is wrong with the pages for people who do not see, or do not point: nothing that axe-core finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from cli.study_process import THIRD, StudyServer
from service import patient
from web.conftest import Visit
from web.site import WebServer, gradient, open_photo, painted

pytestmark = pytest.mark.slow  # minutes in a browser; the way through the page is in test_page.py

CONTRAST = """element => {
    const lightness = colour => {
        const [red, green, blue] = colour.match(/[\\d.]+/g).map(Number).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const {color, backgroundColor} = getComputedStyle(element);
    const [light, dark] = [lightness(color), lightness(backgroundColor)].sort((one, other) => other - one);
    return (light + 0.05) / (dark + 0.05);
}"""


def violations(page: Page) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]})
    return [f"{each['id']}: {node['html'][:120]}" for each in found.response["violations"] for node in each["nodes"]]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_page(visit: Visit, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    assert violations(page) == []
    open_photo(page, gradient())
    page.locator("#variants label", has_text="2").click()
    page.locator("#restore").click()
    expect(page.locator(".variant[data-state=done]:visible")).to_have_count(2)
    painted(page, 1)
    assert violations(page) == []
    page.locator("#keys-button").click()
    page.locator("#keys").wait_for()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Remove", exact=True).first.click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_what_is_pressed_is_read_under_the_pointer(visit: Visit, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    open_photo(page, gradient())
    page.locator("#actual").click()
    expect(page.locator("#actual")).to_have_attribute("aria-pressed", "true")
    for name in ("#actual", "#variants :checked + span", "#against :checked + span", ".scale :checked + span"):
        page.locator(name).hover(force=True)  # the radio lies above its label
        assert page.locator(name).evaluate(CONTRAST) >= 4.5, name


def test_the_interface_for_people(server: WebServer, browser: Browser) -> None:
    with browser.new_context() as context:
        page, outside = context.new_page(), []
        page.on("request", lambda request: outside.append(request.url))
        page.goto(f"{server.url}/api")
        expect(page.locator("#routes")).to_have_attribute("aria-busy", "false")
        expect(page.locator("#routes details")).to_have_count(sum(map(len, _routes(server).values())))
        page.locator("summary", has_text="/v1/plan").click()
        expect(page.locator("details[open]")).to_contain_text("text_guidance")
        assert violations(page) == []
        assert [url for url in outside if not url.startswith(server.url)] == []


def _routes(server: WebServer) -> dict[str, dict[str, object]]:
    return dict(patient.get(f"{server.url}/openapi.json").json()["paths"])


@pytest.mark.parametrize("ask", ["pairs", "best"])
def test_the_page_of_a_study(browser: Browser, tmp_path: Path, ask: str) -> None:
    server = StudyServer(tmp_path, "--ask", ask, "--method", f"{THIRD}={tmp_path / THIRD}")
    try:
        with browser.new_context() as context:
            page = context.new_page()
            page.goto(server.url)
            page.get_by_role("button", name="Start").wait_for()
            assert violations(page) == []
            page.get_by_role("button", name="Start").click()
            page.locator("[data-place='2']:enabled" if ask == "best" else "[data-place='1']:enabled").wait_for()
            assert violations(page) == []
    finally:
        server.kill()
