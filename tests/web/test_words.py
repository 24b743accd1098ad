"""The page's texts: one catalogue a language, with the same messages, and nothing that is read beside them."""

from __future__ import annotations

import inspect
import json
import re
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from supir.service.engine import Engine
from web.conftest import Visit
from web.site import WebServer, gradient, open_photo, painted

PAGE = files("supir.service").joinpath("page")
LANGUAGES = ("en", "ko")
OF_DATA = ("option.", "error.", "state.", "waits.", "preset.", "group.", "scale.", "day.", "audit.", "painted.")
"""Beginnings of messages whose ends are names in data."""
BYPASSING = r"""() => {
    const beside = text => {
        let before;
        do { before = text; text = text.replace(/⟦[^⟦⟧]*⟧/g, ''); } while (text !== before);
        return /\p{L}/u.test(text);
    };
    const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const {parentElement, data} = texts.currentNode;
        if (!parentElement.closest('[translate=no], script, template') && beside(data)) found.push(data.trim());
    }
    for (const each of document.querySelectorAll('body *'))
        for (const text of ['title', 'aria-label', 'placeholder', 'alt'].map(name => each.getAttribute(name) ?? ''))
            if (!each.closest('[translate=no]') && beside(text)) found.push(text);
    return found;
}"""


def catalogue(language: str) -> dict[str, Any]:
    return dict(json.loads(PAGE.joinpath(f"words.{language}.json").read_text(encoding="utf-8")))


def forms(message: Any) -> list[str]:
    return [message] if isinstance(message, str) else list(message.values())


def _outside(message: Any) -> str:
    """What stands beside the values."""
    return re.sub(r"\{\w+\}", "", str(message))


def test_both_catalogues_have_the_same_messages() -> None:
    english, korean = map(catalogue, LANGUAGES)
    assert list(english) == list(korean)
    for key in english:
        values = [
            {name for form in forms(each[key]) for name in re.findall(r"\{(\w+)\}", form)} for each in (english, korean)
        ]
        assert values[0] == values[1] or values[0] - values[1] == {"count"}, key
        for each in (english, korean):
            assert isinstance(each[key], str) or "other" in each[key], key
            assert all(form.strip() for form in forms(each[key])), key
    same = [key for key in english if english[key] == korean[key] and re.search(r"[a-z]{3}", _outside(english[key]))]
    assert same == ["preset.term"]  # the field's own


def test_every_message_is_used_and_every_used_one_is_there() -> None:
    told = set(catalogue("en"))
    text = "".join(file.read_text(encoding="utf-8") for file in PAGE.iterdir() if file.name.endswith((".js", ".html")))
    named = set(re.findall(r"""data-(?:text|title|label|placeholder)="([\w.]+)\"""", text))
    assert named <= told
    quoted = set(re.findall(r"'([a-z][\w.]*)'", text))
    assert {key for key in told if key not in named | quoted and not key.startswith(OF_DATA)} == set()
    waits = set(re.findall(r'"([a-z]+(?: [a-z]+)+)"', inspect.getsource(Engine._waited_for)))
    assert waits == {key.removeprefix("waits.").replace("-", " ") for key in told if key.startswith("waits.")}


def marked(route: Route) -> None:
    """A language in which every message stands in brackets."""

    def mark(message: Any) -> Any:
        return f"⟦{message}⟧" if isinstance(message, str) else {form: f"⟦{text}⟧" for form, text in message.items()}

    route.fulfill(json={key: mark(message) for key, message in catalogue("en").items()})


def test_no_text_bypasses_the_catalogues(server: WebServer, visit: Visit) -> None:
    page = visit()
    page.route("**/words.en.json", marked)
    page.reload()
    expect(page.locator("#restore")).to_have_text("⟦Restore⟧")
    page.locator("#file").set_input_files({"name": "bad.png", "mimeType": "image/png", "buffer": b"GIF89a"})
    expect(page.get_by_role("alert")).to_contain_text("⟦This file cannot be read.⟧")
    said = page.evaluate(BYPASSING)
    open_photo(page, gradient(), "seen.png", prompt="a cat", seed=3)
    said += page.evaluate(BYPASSING)
    page.locator("#restore").click()
    expect(page.locator(".tag.right").first).to_have_text("⟦After⟧")
    painted(page)
    page.locator("#fields [name=color_fix]").select_option("adain")
    page.locator("#restore").click()
    expect(page.locator(".frame img")).to_have_count(3)
    page.locator("#search").fill("nobody")
    expect(page.locator("#nothing")).to_be_visible()
    said += page.evaluate(BYPASSING)
    page.get_by_role("button", name="⟦Phone⟧").click()
    page.locator("#phone").wait_for()
    said += page.evaluate(BYPASSING)
    assert said == []


def no_key_is_seen(page: Page) -> None:
    seen = page.locator("body").inner_text()
    assert [key for key in catalogue("en") if "." in key and key in seen.split()] == []


def test_korean_by_the_browser_and_english_by_the_switch(server: WebServer, visit: Visit) -> None:
    page = visit(locale="ko-KR")
    expect(page.get_by_role("heading", name="여기에 사진을 끌어다 놓으세요")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "ko"
    open_photo(page, gradient())
    expect(page.locator(".what").first).to_have_text("깨끗한 미리보기")
    no_key_is_seen(page)
    page.locator("#restore").click()
    expect(page.locator(".what").first).to_contain_text("시드 0")
    expect(page.locator(".tag.right").first).to_have_text("이후")
    page.get_by_role("combobox", name="언어").select_option("en")
    expect(page.locator("#restore")).to_have_text("Restore")
    expect(page.locator(".what").first).to_contain_text("seed 0")
    expect(page.locator(".tag.right").first).to_have_text("After")
    assert page.locator("#fields [name=num_steps]").input_value() == "3"  # what was set stays
    page.reload()
    expect(page.locator("#restore")).to_have_text("Restore")
    no_key_is_seen(page)


@pytest.mark.parametrize("locale", ["fr-FR", "en-GB"])
def test_english_for_others(visit: Visit, locale: str) -> None:
    page = visit(locale=locale)
    expect(page.get_by_role("heading", name="Drop photos here")).to_be_visible()
