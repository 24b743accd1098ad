"""Several photos by one button, their captions, what they will take, and what was removed and taken back."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from service.serving import LONG, QUICK, picture, until
from supir.options import NOTICE
from web.conftest import Visit
from web.site import WebServer, choose, described, file, gradient, open_photo, painted, variants

pytestmark = pytest.mark.slow  # minutes in a browser; the way through the page is in test_page.py

LEFT = "dispatchEvent(new Event('pagehide'))"


def told(page: Page, **changed: Any) -> None:
    """The page is told something else of what may be set."""

    def answer(route: Route) -> None:
        route.fulfill(json=route.fetch().json() | changed)

    page.route("**/v1/options", answer)
    page.reload()
    page.locator("#presets input").first.wait_for()


def test_several_photos_by_one_button(server: WebServer, visit: Visit) -> None:
    page = visit()
    choose(page, **QUICK)
    names = ("one.png", "two.png", "three.png")
    page.locator("#file").set_input_files([file(gradient(96 + 16 * k), name) for k, name in enumerate(names)])
    expect(page.locator("#restore")).to_have_text("Restore 3 photos")
    expect(page.locator("#batch-state")).to_have_text("3 photos: 0 restored, 0 at work")  # the previews are made
    page.locator("#restore").click()
    expect(page.locator("#batch-state")).to_have_text("3 photos: 3 restored, 0 at work")
    expect(page.locator(".frame img")).to_have_count(6)
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download as zip").click()
    archive = zipfile.ZipFile(io.BytesIO(Path(downloading.value.path()).read_bytes()))
    assert sorted(archive.namelist()) == sorted(name.replace(".png", ".restored.png") for name in names)
    page.get_by_role("checkbox", name="Choose two.png").uncheck()
    expect(page.locator("#restore")).to_have_text("Restore 2 photos")
    page.get_by_role("button", name="Remove these").click()
    expect(page.locator(".photo")).to_have_count(1)
    expect(described(page)).to_contain_text("seed 0")  # of what is left
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".frame img")).to_have_count(6)
    assert len(server.jobs()) == 6
    page.get_by_role("button", name="one.png, Clean preview").click()
    page.keyboard.press("Delete")
    expect(page.locator(".photo")).to_have_count(2)
    page.keyboard.press("Control+z")
    expect(page.locator(".photo")).to_have_count(3)
    page.get_by_role("button", name="one.png, Clean preview").click()
    page.keyboard.press("Delete")
    page.evaluate(LEFT)
    until(lambda: {job["name"] for job in server.jobs()} == {"two.png", "three.png"})
    expect(page.locator("#toast > div")).to_be_hidden()


def test_what_is_not_taken_back_goes(server: WebServer, visit: Visit) -> None:
    page = visit()
    page.clock.install()
    page.reload()
    page.locator("#presets input").first.wait_for()
    open_photo(page, gradient())
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    assert len(server.jobs()) == 1
    page.clock.fast_forward(20_000)
    expect(page.get_by_role("button", name="Undo")).to_be_hidden()
    until(lambda: server.jobs() == [])


def test_a_caption_belongs_to_its_photo(server: WebServer, visit: Visit) -> None:
    page = visit()
    words = page.locator("#fields [name=prompt]")
    open_photo(page, gradient(), "cat.png")
    words.fill("A grey cat.")
    page.locator("#file").set_input_files(file(gradient(112), "dog.png"))
    expect(page.locator(".frame img")).to_have_count(2)
    expect(words).to_have_value("")
    words.fill("A dog.")
    page.get_by_role("button", name="cat.png, Clean preview").click()
    expect(words).to_have_value("A grey cat.")
    page.reload()
    page.get_by_role("button", name="dog.png, Clean preview").click()
    expect(words).to_have_value("A dog.")
    choose(page, **QUICK)
    page.get_by_role("checkbox", name="Choose cat.png").check()
    page.get_by_role("button", name="Restore 2 photos").click()
    expect(page.locator("#batch-state")).to_have_text("2 photos: 2 restored, 0 at work")
    asked = {job["name"]: job["options"]["prompt"] for job in server.jobs() if job["until"] == "result"}
    assert asked == {"cat.png": "A grey cat.", "dog.png": "A dog."}
    expect(described(page)).to_contain_text("“A dog.”")


def test_the_same_twice_is_answered_from_what_is_there(server: WebServer, visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient())
    page.locator("#restore").click()
    expect(page.locator(".tag.right").first).to_have_text("After")
    page.locator("#restore").click()
    expect(page.get_by_role("alert")).to_contain_text("This result was there already")
    page.locator("#file").set_input_files(file(gradient(), "again.png"))
    expect(page.locator("#status")).to_have_text("ready")
    assert len(server.jobs()) == 2


def test_sizes_and_time_before_anything_starts(server: WebServer, visit: Visit) -> None:
    page = visit()
    plan = page.locator("#plan")
    expect(plan).to_be_hidden()
    open_photo(page, gradient())
    expect(plan).to_contain_text("96 × 64 to 96 × 64, about ")
    expect(page.locator("#scale-caution")).to_be_hidden()
    page.locator(".scale label", has_text="4×").click()
    expect(page.locator("#scale-caution")).to_contain_text("small faces")
    expect(plan).to_contain_text("96 × 64 to 384 × 256, about ")
    assert page.get_by_label("Width of the result").input_value() == "384"
    page.get_by_label("Width of the result").fill("192")
    page.get_by_label("Width of the result").press("Tab")
    expect(page.locator("[name=factor]:checked")).to_have_value("2")
    assert page.get_by_label("Height of the result").input_value() == "128"
    page.locator("#variants label", has_text="3").click()
    expect(plan).to_contain_text("96 × 64 to 192 × 128, 3 versions, about ")
    limits = {"megapixels": 1, "work_megapixels": 0.01, "megabytes": 1, "queued": 100, "requests_a_minute": None}
    told(page, limits=limits)
    expect(page.locator("[name=factor]:checked")).to_have_value("1")  # twice would not be allowed
    expect(page.locator("[name=factor][value='4']")).to_be_disabled()
    page.route("**/again?*", lambda route: route.abort())
    with page.expect_request("**/again?*") as asked:
        page.locator("#restore").click()
    assert asked.value.post_data_json["scale"] == 1


def test_what_the_model_does_not_use_is_said(visit: Visit) -> None:
    page = visit()
    unused = {"prompt": "its UNet hears no words"}
    told(page, unused=unused, same_presets={"fidelity": "quality"}, own_presets=["quality", "fidelity"])
    caption = page.locator(".field[data-name=prompt]")
    expect(caption).to_contain_text("Not used by this model (its UNet hears no words)")
    expect(caption.locator("textarea")).to_be_disabled()
    expect(page.locator(".preset", has_text="Fidelity")).to_contain_text("the same as Quality with this model")
    expect(page.locator(".preset", has_text="Quality").first).to_contain_text("set for this model: 50 steps")
    expect(page.locator("#presets")).not_to_contain_text("Reference")  # is for experts


def test_nothing_is_called_a_preview_before_there_is_one(server: WebServer, visit: Visit) -> None:
    first = server.submit(picture(1), "other.png")["id"]
    long = server.again(first, **LONG).json()["id"]
    until(lambda: server.get(long)["state"] == "running")
    page = visit()
    choose(page, **QUICK)
    page.locator("#file").set_input_files(file(gradient(), "new.png"))
    expect(page.get_by_role("button", name="new.png, Photo, waiting")).to_be_visible()
    expect(page.locator(".tag.right").first).to_be_hidden()
    expect(page.locator(".handle").first).to_be_hidden()
    expect(page.locator("#against [value=preview]")).to_be_disabled()
    expect(described(page)).to_have_text("Photo · next in the queue")
    server.client().cancel(server.client().get(long))
    painted(page)
    expect(page.locator(".tag.right").first).to_have_text("Clean preview")
    expect(page.locator("#against [value=preview]")).to_be_enabled()


def test_results_are_told_apart(server: WebServer, visit: Visit, tmp_path: Path) -> None:
    photo = server.submit(gradient(), "a.png")["id"]
    for more in ({}, {"preset": "fidelity"}, {"scale": 2.0}, {"color_fix": "none"}, {"prompt": "a red apple"}):
        server.ended(server.again(photo, **more).json()["id"])
    page = visit()
    expect(page.locator(".frame img")).to_have_count(6)
    under = page.locator(".frame .under").all_inner_texts()
    assert len(set(under)) == 6, under
    expect(described(page)).to_contain_text("Quality · 1×, 96 × 64 · ")
    expect(described(page)).to_contain_text("“a red apple”")
    page.get_by_role("checkbox", name="with a note").check()
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download", exact=True).click()
    archive = zipfile.ZipFile(io.BytesIO(Path(downloading.value.path()).read_bytes()))
    assert archive.namelist() == ["a.restored.png", "a.restored.png.txt"]
    assert NOTICE in archive.read("a.restored.png.txt").decode()


def test_the_history_is_searched_and_gone_through_by_keys(server: WebServer, visit: Visit) -> None:
    for number, name in enumerate(("cat 1950.png", "dog.png", "cat 1960.png")):
        server.submit(picture(number), name)
    page = visit()
    expect(page.locator(".frame")).to_have_count(3)
    expect(page.locator(".day")).to_have_count(1)
    current = page.locator(".open[aria-current=true]")
    expect(current).to_have_attribute("aria-label", "cat 1960.png, Clean preview")
    for key, name in (("j", "dog.png"), ("j", "cat 1950.png"), ("j", "cat 1950.png"), ("k", "dog.png")):
        page.keyboard.press(key)
        expect(current).to_have_attribute("aria-label", f"{name}, Clean preview")
    page.keyboard.press("/")
    page.keyboard.type("CAT 1950")
    expect(page.locator(".frame")).to_have_count(1)
    page.locator("#search").fill("elephant")
    expect(page.locator("#nothing")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".frame")).to_have_count(3)
    expect(variants(page)).to_have_count(1)
