"""A folder of photographs through the page as a person would take them, timed: by `make web-visit DATA=FOLDER`.

python -m web.visit FOLDER   (with src and tests on the path)
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, expect

from chromium import WIDE, chromium
from web.site import WebServer, file
from web.test_accessible import violations

_MINUTES = 60 * 60_000


def visit(server: WebServer, browser: Browser, photos: list[Path]) -> dict[str, Any]:
    """Drop the photographs, see their clean previews, restore them by one button, fetch them as one zip.

    Returns:
        Figures by what they are of: seconds, and seconds of the processor where the machine has other work.
    """
    with browser.new_context(**WIDE, color_scheme="dark") as context:
        page, found = context.new_page(), {}
        page.set_default_timeout(_MINUTES)
        start = time.monotonic()
        page.goto(server.url)
        page.locator("#presets input").first.wait_for()
        found["the page is there, s"] = time.monotonic() - start
        before, start = _worked(server), time.monotonic()
        page.locator("#file").set_input_files([file(path.read_bytes(), path.name) for path in photos])
        expect(page.locator(".frame img").first).to_be_visible(timeout=_MINUTES)
        found["the first clean preview, from the drop, s"] = time.monotonic() - start
        expect(page.locator(".frame img")).to_have_count(len(photos), timeout=_MINUTES)
        found["all clean previews, s"] = time.monotonic() - start
        found["a clean preview, processor s"] = (_worked(server) - before) / len(photos)
        assert page.locator("#plan").inner_text().strip()
        found["the page says"] = page.locator("#plan").inner_text()
        before, start = _worked(server), time.monotonic()
        page.locator("#restore").click()
        done = f"{len(photos)} photos: {len(photos)} restored, 0 at work"
        expect(page.locator("#batch-state")).to_have_text(done, timeout=_MINUTES)
        found["all restored by one button, s"] = time.monotonic() - start
        found["a restoration, processor s"] = (_worked(server) - before) / len(photos)
        made = [job for job in server.jobs() if job["until"] == "result"]
        assert [job["error"] for job in made if job["error"]] == []
        found["a restoration, median s"] = statistics.median(_seconds(job) for job in made)
        with page.expect_download() as downloading:
            page.locator("#batch-download").click()
        archive = zipfile.ZipFile(io.BytesIO(Path(downloading.value.path()).read_bytes()))
        assert len(archive.namelist()) == len(photos)
        assert archive.testzip() is None
        found["violations that axe finds"] = len(violations(page))
        return found


def _worked(server: WebServer) -> float:
    """Seconds of the processor that the workers have used."""
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process(server.process.pid).children(recursive=True))


def _seconds(job: dict[str, Any]) -> float:
    started, finished = (datetime.fromisoformat(job[name]) for name in ("started", "finished"))
    return (finished - started).total_seconds()


def main() -> None:
    """With the bundled model."""
    from supir.weights.model_folder import BUNDLED_MODEL

    photos = sorted(path for path in Path(sys.argv[1]).iterdir() if path.suffix in (".png", ".jpg"))
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        server = WebServer(Path(temporary), BUNDLED_MODEL)
        try:
            server.ready()
            print(f"{len(photos)} photographs")
            for name, value in visit(server, browser, photos).items():
                print(f"{name}: {value:.1f}" if isinstance(value, float) else f"{name}: {value}", flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
