"""The page of a study in a real Chromium, on a wide screen and on a phone, against a real server that gets killed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Response, expect

from chromium import PHONE, chromium, touch
from cli.study_process import FIRST, NUM_QUESTIONS, PICTURES, SECOND, THIRD, StudyServer
from service.serving import until
from supir.evaluation.study.store import Store

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudyServer]:
    running = StudyServer(tmp_path_factory.mktemp("study"))
    yield running
    running.kill()


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudyServer]:
    """One that asks for the best of three."""
    folder = tmp_path_factory.mktemp("best")
    running = StudyServer(folder, "--ask", "best", "--method", f"{THIRD}={folder / THIRD}")
    yield running
    running.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture
def visit(server: StudyServer, browser: Browser) -> Iterator[Visit]:
    """Opens the page as somebody new, and reads what the page complains of."""
    contexts, complaints = [], []

    def opened(url: str = server.url, **options: Any) -> Page:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 720}, **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        page.get_by_role("button", name="Start").click()
        arrived(page, 1)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def arrived(page: Page, number: int) -> None:
    """The question is shown and can be answered. Asked often: Playwright's own waiting slows down to half seconds."""
    shown = "document.querySelector('#count').innerText + document.querySelector('[data-place]:enabled')?.dataset.place"
    for _ in range(3000):
        if page.evaluate(shown) == f"{number} of {NUM_QUESTIONS}0":
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"question {number} did not come: {page.evaluate(shown)}")


def transforms(page: Page) -> list[str]:
    return page.eval_on_selector_all(".sheet", "sheets => sheets.map(sheet => getComputedStyle(sheet).transform)")


def scale(page: Page) -> float:
    [one] = set(transforms(page))
    return float(one.removeprefix("matrix(").split(",")[0])


def choices(server: StudyServer, before: int) -> list[int | None]:
    """By place, in the order they were asked."""
    votes = Store(server.database).votes()[before:]
    return [None if vote.chosen is None else vote.shown.index(vote.chosen) for vote in votes]


def test_a_whole_study_by_keyboard_and_no_name_anywhere(server: StudyServer, visit: Visit) -> None:
    before = len(Store(server.database).votes())
    page = visit()
    responses: list[Response] = []
    page.on("response", lambda response: responses.append(response))
    page.reload()
    arrived(page, 1)
    for number, key in enumerate(("ArrowLeft", "ArrowRight", "Backspace", "ArrowLeft", "Space", "ArrowDown")):
        page.keyboard.press(key)
        if number < 5:
            arrived(page, (2, 3, 2, 3, 4)[number])
    expect(page.locator("#message")).to_contain_text(f"All {NUM_QUESTIONS} questions are answered")
    assert choices(server, before) == [0, 0, None, None]
    page.keyboard.press("Backspace")
    arrived(page, NUM_QUESTIONS)
    assert choices(server, before) == [0, 0, None]
    told = page.content().encode()
    for response in responses:
        told += response.url.encode() + str(response.all_headers()).encode() + response.body()
    assert len(responses) > 3 * NUM_QUESTIONS
    assert all(response.url.startswith(server.url) for response in responses), "the page needs nobody else"
    for word in (FIRST, SECOND, *PICTURES):
        assert word.encode() not in told


def test_sides_and_order_differ_between_people(visit: Visit) -> None:
    addresses = [
        page.eval_on_selector_all(".sheet img", "images => images.map(image => image.src)")
        for page in (visit(), visit())
    ]
    assert len({address for found in addresses for address in found}) == 6  # two sides and the input, of each their own
    for found in addresses:
        assert re.search(r"/picture/[\w-]{22}/0$", found[0])


@pytest.mark.slow
def test_one_look_for_both_pictures(visit: Visit) -> None:
    page = visit()
    fitted = transforms(page)
    right = page.locator(".pane").nth(1).bounding_box()
    assert right is not None
    page.mouse.move(right["x"] + 100, right["y"] + 300)
    page.mouse.wheel(0, -300)
    wanted = float(fitted[0].split("(")[1].split(",")[0]) * 2.718**0.6
    until(lambda: scale(page) == pytest.approx(wanted, rel=0.01))
    zoomed = transforms(page)
    page.mouse.down()
    page.mouse.move(right["x"] + 40, right["y"] + 270)
    page.mouse.up()
    dragged = transforms(page)
    assert dragged[0] == dragged[1] != zoomed[0]
    page.keyboard.press("Shift+ArrowLeft")
    assert dragged[0] != transforms(page)[0] == transforms(page)[1]
    page.keyboard.press("z")
    assert scale(page) == 1
    expect(page.get_by_role("button", name="Actual pixels")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("z")
    assert transforms(page) == fitted
    page.keyboard.press("+")
    assert transforms(page) != fitted
    page.set_viewport_size({"width": 900, "height": 700})
    page.keyboard.press("0")
    until(lambda: scale(page) < float(fitted[0].split("(")[1].split(",")[0]))


@pytest.mark.slow
def test_the_input_is_there_while_it_is_held(visit: Visit) -> None:
    page = visit()
    seen = "images => images.filter(i => getComputedStyle(i).visibility === 'visible').map(i => i.alt)"
    assert page.eval_on_selector_all(".sheet img", seen) == ["Picture A", "Picture B"]
    page.keyboard.down("i")
    assert page.eval_on_selector_all(".sheet img", seen) == ["Input", "Input"]
    assert page.locator("figcaption").all_inner_texts() == ["Input", "Input"]
    page.keyboard.up("i")
    assert page.eval_on_selector_all(".sheet img", seen) == ["Picture A", "Picture B"]
    box = page.locator("#input").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 9, box["y"] + 9)
    page.mouse.down()
    assert page.eval_on_selector_all(".sheet img", seen) == ["Input", "Input"]
    page.mouse.up()
    assert page.eval_on_selector_all(".sheet img", seen) == ["Picture A", "Picture B"]
    expect(page.locator("#original")).to_be_hidden()  # there is none in this study


def test_a_double_click_is_one_vote(server: StudyServer, visit: Visit) -> None:
    before = len(Store(server.database).votes())
    page = visit()
    page.dblclick("[data-place='1']")
    arrived(page, 2)
    page.wait_for_timeout(400)
    page.keyboard.press("Space")  # "no preference", not the button that was clicked
    arrived(page, 3)
    assert choices(server, before) == [1, None]
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("ArrowLeft")  # not while the help is open
    page.keyboard.press("Escape")
    assert choices(server, before) == [1, None]


@pytest.mark.slow
def test_a_killed_server_comes_back_and_all_go_on(server: StudyServer, visit: Visit) -> None:
    before = len(Store(server.database).votes())
    one, other = visit(), visit()
    one.keyboard.press("ArrowLeft")
    arrived(one, 2)
    other.keyboard.press("ArrowRight")
    arrived(other, 2)
    server.kill()
    one.keyboard.press("Space")
    expect(one.locator("#message")).to_contain_text("trying again")
    assert len(choices(server, before)) == 2
    server.start()
    arrived(one, 3)
    other.reload()
    arrived(other, 2)
    assert choices(server, before) == [0, 1, None]


def test_on_a_phone(visit: Visit, tmp_path: Path) -> None:
    page = visit(**PHONE)
    page.screenshot(path=tmp_path / "phone.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    one, other = (page.locator(".pane").nth(k).bounding_box() for k in (0, 1))
    assert one is not None
    assert other is not None
    assert other["y"] > one["y"]  # wide pictures stand one over the other, and larger so
    for name in ("A is better", "No preference", "B is better", "Input", "Help", "Actual pixels"):
        box = page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 40
    fitted = scale(page)
    fingers = page.context.new_cdp_session(page)

    x, y = one["x"], one["y"] + 100
    touch(fingers, "touchStart", (x + 150, y), (x + 200, y))
    touch(fingers, "touchMove", (x + 125, y), (x + 225, y))
    touch(fingers, "touchEnd")
    until(lambda: scale(page) == pytest.approx(2 * fitted, rel=0.02))
    page.get_by_role("button", name="B is better", exact=True).tap()
    arrived(page, 2)
    page.set_viewport_size({"width": 844, "height": 390})
    until(lambda: page.evaluate("innerWidth") == 844)
    one, other = (page.locator(".pane").nth(k).bounding_box() for k in (0, 1))
    assert one is not None
    assert other is not None
    assert other["y"] == one["y"]


@pytest.mark.slow
def test_the_best_of_three_with_the_input_beside(best: StudyServer, visit: Visit) -> None:
    page = visit(best.url)
    assert page.title() == "Which picture is best?"
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    assert page.locator(".pane figcaption").all_inner_texts() == ["1", "2", "3", "Input"]
    seen = "images => images.filter(i => getComputedStyle(i).visibility === 'visible').map(i => i.alt)"
    assert page.eval_on_selector_all(".sheet img", seen) == ["Picture 1", "Picture 2", "Picture 3", "Input"]
    page.keyboard.press("z")
    assert scale(page) == 1  # of all four
    for number, key in enumerate(("3", "4", "ArrowLeft", "Backspace", "2", " ", "1"), 1):
        page.keyboard.press(key)
        if number < 7:
            arrived(page, (2, 2, 2, 1, 2, 3)[number - 1])
    arrived(page, 4)
    page.reload()
    arrived(page, 4)
    assert choices(best, 0) == [1, None, 0]
    page.get_by_role("button", name="3 is best").click()
    expect(page.locator("#message")).to_contain_text(f"All {NUM_QUESTIONS} questions are answered")
    assert choices(best, 0) == [1, None, 0, 2]
    told = page.content() + str(asked)
    for word in (FIRST, SECOND, THIRD, *PICTURES):
        assert word not in told


@pytest.mark.slow
def test_two_windows_of_one_person_are_one(best: StudyServer, visit: Visit) -> None:
    before = len(Store(best.database).votes())
    page = visit(best.url)
    other = page.context.new_page()
    other.goto(best.url)
    arrived(other, 1)
    page.keyboard.press("1")
    arrived(page, 2)
    other.keyboard.press("3")  # answered already: it sees where the other is
    arrived(other, 2)
    assert choices(best, before) == [0]


@pytest.mark.slow
def test_the_best_on_a_phone(best: StudyServer, visit: Visit) -> None:
    page = visit(best.url, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    for name in ("1 is best", "2 is best", "3 is best", "Cannot tell"):
        box = page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 40
    cut = "buttons => buttons.filter(each => each.scrollWidth > each.clientWidth).map(each => each.innerText)"
    assert page.eval_on_selector_all("button", cut) == []
    places = [page.locator(".pane").nth(k).bounding_box() for k in range(4)]
    assert len({(place["x"], place["y"]) for place in places if place is not None}) == 4
    before = len(Store(best.database).votes())
    page.get_by_role("button", name="Cannot tell").tap()
    arrived(page, 2)
    assert choices(best, before) == [None]
