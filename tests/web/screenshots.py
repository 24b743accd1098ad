"""The pictures of the page in docs/: taken of the running page, by `make web-screenshots`.

python -m web.screenshots FOLDER PHOTO   (with src and tests on the path)
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from chromium import PHONE, WIDE, chromium
from web.site import WebServer, choose, file, painted, variants

SCREENS: dict[str, dict[str, Any]] = {"web-wide": WIDE, "web-phone": PHONE}
_MINUTES = 5 * 60_000


def take(url: str, browser: Browser, folder: Path, photo: Path, options: Mapping[str, Any]) -> list[Path]:
    """A photo restored at two seeds, the first of them open: on a wide screen, and on a phone.

    Args:
        url: of a running `supir web`.
        browser: takes the pictures.
        folder: where they are written.
        photo: is restored.
        options: typed into the form.
    """
    made = []
    for name, screen in SCREENS.items():
        with browser.new_context(color_scheme="dark", **screen) as context:
            page = context.new_page()
            page.set_default_timeout(_MINUTES)
            page.goto(url)
            page.locator("#presets input").first.wait_for()
            if not made:  # the phone finds it in the history
                _restore(page, photo, options)
            _show(page)
            made.append(folder / f"{name}.jpg")
            page.screenshot(path=made[-1], type="jpeg", quality=85)
    return made


def _restore(page: Page, photo: Path, options: Mapping[str, Any]) -> None:
    choose(page, **options)
    for part in ("#expert", "#rest"):
        page.locator(f"{part} summary").click()
    page.locator("#file").set_input_files(file(photo.read_bytes(), photo.name))
    expect(variants(page)).to_have_attribute("data-state", "done", timeout=_MINUTES)
    page.get_by_role("radio", name="2", exact=True).check()
    page.locator("#restore").click()
    expect(page.locator(".variant[data-state=done]:visible")).to_have_count(2, timeout=_MINUTES)
    if page.locator("#message").is_visible():
        page.locator("#message button").click()


def _show(page: Page) -> None:
    page.get_by_role("button", name="seed 7", exact=False).first.click()
    expect(variants(page)).to_have_count(1)
    painted(page)
    expect(page.locator("#plan")).to_have_attribute("aria-busy", "false", timeout=_MINUTES)
    page.locator("#fields").evaluate("fields => { fields.scrollTop = 0; }")
    page.mouse.move(1, 1)
    page.wait_for_timeout(300)  # for what fades in


def main() -> None:
    """Take them of the bundled model."""
    from supir.weights.model_folder import BUNDLED_MODEL

    folder, photo = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        server = WebServer(Path(temporary), BUNDLED_MODEL)
        try:
            server.ready()
            for path in take(server.url, browser, folder, photo, {"scale": 4, "seed": 7}):
                print(f"{path}: {path.stat().st_size // 1000} kB")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
