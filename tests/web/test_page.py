"""A photographer's way over the page: open, restore, compare, cancel, download, come back; and what is no photo."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from playwright.sync_api import Page, Route, expect

from service import patient
from service.serving import LONG, picture, until
from supir import image
from web.conftest import Visit
from web.site import (
    WebServer,
    choose,
    described,
    file,
    gradient,
    layer,
    open_photo,
    painted,
    pixels,
    saved,
    scale,
    variants,
)

DROP = """([data, name]) => {
    const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt());
    const dropped = new DataTransfer();
    dropped.items.add(new File([bytes], name));
    document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: dropped, bubbles: true, cancelable: true}));
}"""


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def got(server: WebServer, job: str, what: str) -> bytes:
    return patient.get(f"{server.url}/v1/jobs/{job}/{what}").raise_for_status().content


def test_from_drop_to_download(server: WebServer, visit: Visit, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Ada"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = gradient(kind="JPEG", exif=exif, icc_profile=profile, quality=95)
    page = visit()
    expect(page.get_by_role("heading", name="Drop photos here")).to_be_visible()
    choose(page, num_steps=3, min_size=64, scale=2, text_guidance=1)
    page.evaluate(DROP, [b64encode(data).decode(), "Äpfel.jpg"])
    painted(page)
    expect(described(page)).to_have_text("Clean preview")
    [photo] = server.jobs()
    assert (photo["until"], photo["name"]) == ("preview", "Äpfel.jpg")
    np.testing.assert_array_equal(pixels(layer(page, "after")), decoded(got(server, photo["id"], "preview")))
    assert np.abs(pixels(layer(page, "before")).astype(int) - decoded(data)).max() <= 3
    choose(page, prompt="three apples", negative_prompt="blur")
    page.get_by_role("button", name="Restore").click()
    expect(page.locator(".tag.right").first).to_have_text("After")
    job = server.jobs()[0]
    assert (job["source"], job["options"]["scale"]) == (photo["id"], 2)
    painted(page)
    np.testing.assert_array_equal(pixels(layer(page, "after")), decoded(got(server, job["id"], "result")))
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download").click()
    assert downloading.value.suggested_filename == "Äpfel.restored.jpg"
    stored = saved(tmp_path, Path(downloading.value.path()).read_bytes(), "restored.jpg")
    assert stored.read_bytes() == got(server, job["id"], "result")
    assert Image.open(stored).getexif()[0x013B] == "Ada"
    assert Image.open(stored).info["icc_profile"] == profile
    record = image.read_record(stored)
    assert record["prompt"].startswith("three apples ")
    assert (record["negative_prompt"], record["seed"], record["words_from"]) == ("blur", "0", "typed")


def test_steps_arrive_as_pictures_and_cancel_stops_the_work(server: WebServer, visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient())
    choose(page, num_steps=1000)
    page.locator("#restore").click()
    step = page.locator(".tag.right").first
    seen: dict[bytes, int] = {}

    def another() -> bool:
        if re.fullmatch(r"Step \d+", step.inner_text()) and layer(page, "after").count():
            shown = pixels(layer(page, "after"))
            seen.setdefault(shown.tobytes(), int(step.inner_text().split()[1]))
        return len(seen) >= 4

    until(another)
    assert list(seen.values()) == sorted(seen.values())
    expect(described(page)).to_have_text(re.compile(r"seed 0 .* step [\d,]+ of 1,000"))
    assert float(page.locator("progress:visible").first.get_attribute("value") or 0) > 0
    job = server.jobs()[0]["id"]
    page.get_by_role("button", name="Cancel").last.click()
    expect(described(page)).to_contain_text("· cancelled")
    assert server.get(job)["state"] == "cancelled"
    assert patient.get(f"{server.url}/health/ready").status_code == 200  # the worker left it, and was not killed
    assert server.submit(picture(1))["state"] == "done"
    assert not (server.data / "jobs" / job).exists()
    expect(page.locator("#cancel")).to_be_hidden()


@pytest.mark.slow
def test_seeds_side_by_side_of_one_upload(server: WebServer, visit: Visit) -> None:
    page = visit()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    open_photo(page, gradient())
    choose(page, seed=2**53 + 1)
    page.get_by_role("radio", name="3", exact=True).check()
    page.locator("#restore").click()
    expect(page.locator(".variant[data-state=done]:visible")).to_have_count(3)
    assert sum("/v1/jobs?" in url for url in sent) == 1
    assert sorted(job["options"]["seed"] for job in server.jobs() if job["until"] == "result") == [
        2**53 + 1, 2**53 + 2, 2**53 + 3
    ]  # fmt: skip
    for k in range(3):
        expect(described(page, k)).to_contain_text(f" · seed {2**53 + 1 + k} · ")
    expect(page.locator(".variant:visible .tag.right").last).to_have_text("After")
    until(lambda: len({pixels(layer(page, "after", k)).tobytes() for k in range(3)}) == 3)
    boxes = [variants(page).nth(k).bounding_box() for k in range(3)]
    assert len({(box["x"], box["y"]) for box in boxes if box}) == 3
    fitted = scale(page)
    second = boxes[1]
    assert second is not None
    page.mouse.move(second["x"] + second["width"] / 3, second["y"] + 80)
    page.mouse.wheel(0, -300)
    until(lambda: scale(page) == pytest.approx(fitted * 2.718**0.6, rel=0.02))  # in every pane
    page.get_by_role("button", name=f"seed {2**53 + 2}").click()
    expect(variants(page)).to_have_count(1)
    page.locator(".frame .add:visible").last.click()
    expect(variants(page)).to_have_count(2)


def colour(page: Page, share: float) -> np.ndarray:
    """What is seen in the middle row of the picture, at so much of its width."""
    box = page.locator(".variant:not([hidden]) .pane").bounding_box()
    assert box is not None
    shot = decoded(page.screenshot(clip={"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"]}))
    inside = layer(page, "after").bounding_box()
    assert inside is not None
    x, y = inside["x"] - box["x"] + share * inside["width"], inside["y"] - box["y"] + inside["height"] * 0.3
    return shot[int(y), int(x)].astype(int)


@pytest.mark.slow
def test_before_and_after_by_pointer_and_by_keys(visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient())
    handle = page.get_by_role("slider", name="Before and after")
    handle.press("Home")
    after = [colour(page, share) for share in (0.1, 0.9)]
    handle.press("End")
    before = [colour(page, share) for share in (0.1, 0.9)]
    assert [abs(before[k] - [255 * share, 77, 255 * (1 - share)]).max() < 8 for k, share in ((0, 0.1), (1, 0.9))] == [
        True, True
    ]  # fmt: skip
    assert all(abs(one - other).max() > 20 for one, other in zip(before, after, strict=True))
    handle.press("Home")
    for key, value in {"ArrowRight": 2, "PageUp": 12, "ArrowLeft": 10}.items():
        handle.press(key)
        assert handle.get_attribute("aria-valuenow") == str(value)
    pane, knob = page.locator(".variant:not([hidden]) .pane").bounding_box(), handle.bounding_box()
    assert pane is not None
    assert knob is not None
    page.mouse.move(knob["x"] + 22, pane["y"] + 40)
    page.mouse.down()
    page.mouse.move(pane["x"] + 0.5 * pane["width"], pane["y"] + 60, steps=3)
    page.mouse.up()
    assert handle.get_attribute("aria-valuenow") == "50"
    assert abs(colour(page, 0.1) - before[0]).max() < 3
    assert abs(colour(page, 0.9) - after[1]).max() < 3
    page.locator("h1").click()
    page.keyboard.press("ArrowRight")
    assert handle.get_attribute("aria-valuenow") == "52"
    page.keyboard.down("b")  # flick
    assert abs(colour(page, 0.9) - before[1]).max() < 3
    page.keyboard.up("b")
    assert abs(colour(page, 0.9) - after[1]).max() < 3
    page.locator("label", has_text=re.compile("^Clean preview")).click()
    handle.press("End")
    until(lambda: abs(colour(page, 0.9) - after[1]).max() < 3)


@pytest.mark.slow
def test_zoom_and_pan(visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient(480, 320))
    fitted = scale(page)
    pane = page.locator(".variant:not([hidden]) .pane")
    box = pane.bounding_box()
    assert box is not None
    pane.dblclick(position={"x": box["width"] / 4, "y": 50})
    assert scale(page) == 1
    expect(page.locator("#zoom")).to_have_text("100 %")
    page.keyboard.press("z")
    assert scale(page) == fitted
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, -400)
    until(lambda: scale(page) > fitted)
    zoomed = layer(page, "after").bounding_box()
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 180)
    page.mouse.up()
    dragged = layer(page, "after").bounding_box()
    assert zoomed is not None
    assert dragged is not None
    assert (dragged["x"] - zoomed["x"], dragged["y"] - zoomed["y"]) == pytest.approx((-50, -20), abs=1)
    page.keyboard.press("Shift+ArrowRight")
    assert (layer(page, "after").bounding_box() or dragged)["x"] < dragged["x"]
    page.get_by_role("button", name="Fit").click()
    assert scale(page) == fitted


@pytest.mark.slow
def test_the_history_survives_reload_and_a_killed_server(server: WebServer, visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient(), "first.png", seed=4)
    page.locator("#restore").click()
    expect(page.locator(".tag.right").first).to_have_text("After")
    painted(page)
    shown = pixels(layer(page, "after"))
    server.kill()
    expect(page.get_by_role("alert")).to_contain_text("Trying again")
    server.start()
    server.ready()
    expect(page.get_by_role("alert")).to_be_hidden()
    page.reload()
    for name in ("first.png, Clean preview", "first.png, seed 4"):
        expect(page.get_by_role("button", name=name)).to_be_visible()
    page.get_by_role("button", name="first.png, seed 4").click()
    expect(page.locator(".tag.right").first).to_have_text("After")
    until(lambda: layer(page, "after").count() and pixels(layer(page, "after")).tobytes() == shown.tobytes())
    until(lambda: pixels(layer(page, "before")).tobytes() == decoded(gradient()).tobytes())
    page.get_by_role("button", name="Use settings").click()
    assert page.locator("#fields [name=seed]").input_value() == "4"
    assert page.locator("#fields [name=min_size]").input_value() == "64"
    choose(page, seed=5)
    page.locator("#restore").click()  # of the upload that was kept
    until(lambda: len([job for job in server.jobs() if job["state"] == "done"]) == 3)
    painted(page)
    page.get_by_role("button", name="Remove", exact=True).click()
    page.reload()  # whoever leaves the page does not take it back
    until(lambda: len(server.jobs()) == 2)


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"GIF89a" + b"0" * 99, "bad.jpg", "bad.jpg: a GIF, not a picture supir reads; allowed are JPEG, PNG, WebP"),
        (b"", "empty.png", "empty.png: an empty file"),
        (b"\0" * 1_500_000, "large.png", "more than 1 megabytes"),
        (picture(1, 2000, 600, "JPEG"), "wide.jpg", "megapixels; allowed are 1"),
    ],
)
def test_files_that_are_refused(server: WebServer, visit: Visit, data: bytes, name: str, said: str) -> None:
    page = visit()
    page.locator("#file").set_input_files(file(data, name))
    expect(page.get_by_role("alert")).to_contain_text(said)
    assert server.jobs() == []
    expect(page.locator("#restore")).to_be_disabled()
    page.get_by_role("button", name="Close the message").click()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_torn_file_says_so_and_the_next_one_works(visit: Visit) -> None:
    page = visit()
    choose(page, min_size=64, scale=1)
    torn = picture(3)
    page.locator("#file").set_input_files(file(torn[: len(torn) // 2], "torn.png"))
    expect(page.get_by_role("alert")).to_contain_text("torn.png: damaged or truncated")
    expect(variants(page)).to_have_attribute("data-state", "failed")
    open_photo(page, gradient())
    expect(page.get_by_role("alert")).to_be_hidden()


def test_wrong_options_are_said_and_nothing_is_queued(server: WebServer, visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient())
    choose(page, tile=64, tile_overlap=60)
    page.locator("#restore").click()
    expect(page.get_by_role("alert")).to_contain_text("at most half a tile")
    choose(page, tile_overlap=32, num_steps=1001)
    page.locator("#restore").click()
    assert not page.locator("#fields [name=num_steps]").evaluate("input => input.validity.valid")
    assert len(server.jobs()) == 1


def test_an_answer_that_comes_late_does_not_turn_back_time(server: WebServer, visit: Visit) -> None:
    page = visit()

    def held(route: Route) -> None:
        answer = route.fetch()
        if route.request.method == "POST":
            until(lambda: server.get(answer.json()["id"])["state"] == "done")
            page.wait_for_timeout(500)  # in which the page hears of it
        route.fulfill(response=answer)

    page.route("**/v1/jobs?reuse=true", held)
    open_photo(page, gradient())
    expect(described(page)).to_have_text("Clean preview")


def test_a_failure_is_said_that_was_known_before_the_answer(server: WebServer, visit: Visit) -> None:
    page = visit()

    def held(route: Route) -> None:
        answer = route.fetch()
        job = answer.json()["id"]
        until(lambda: server.get(job)["state"] == "failed")
        route.fulfill(response=answer, json=server.get(job))

    page.route("**/v1/events", lambda route: None)  # no event ever comes
    page.reload()
    page.locator("#presets input").first.wait_for()  # before it, the page does not hear of a file
    page.route("**/v1/jobs?reuse=true", held)
    torn = picture(3)
    page.locator("#file").set_input_files(file(torn[: len(torn) // 2], "torn.png"))
    expect(page.get_by_role("alert")).to_contain_text("torn.png: damaged or truncated")


@pytest.mark.slow
def test_the_place_in_the_queue(server: WebServer, visit: Visit) -> None:
    page = visit()
    open_photo(page, gradient())
    photo = server.jobs()[0]["id"]
    others = [server.again(photo, **LONG).json()["id"] for _ in range(2)]
    until(lambda: server.get(others[0])["state"] == "running")
    page.locator("#restore").click()
    expect(described(page)).to_contain_text(" · 1 before it in the queue")
    patient.post(f"{server.url}/v1/jobs/{others[1]}/cancel")
    expect(described(page)).to_contain_text(" · next in the queue")
    page.get_by_role("button", name="Cancel all").click()
    expect(described(page)).to_contain_text("· cancelled")
