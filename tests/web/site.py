"""`supir web` as a process of its own, and its page as a user sees it."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from service import patient
from service.serving import QUICK, Server, until


class WebServer(Server):
    """A server that can be killed and started again at the same address."""

    command = ("web", "--no-browser", "--log-format", "json")
    only_json = False  # people are spoken to as well

    def start(self, *more: object) -> None:
        before = getattr(self, "url", "")
        super().start(*more, *(["--port", before.rsplit(":", 1)[1]] if before else []))

    def ready(self) -> None:
        until(lambda: patient.get(f"{self.url}/health/ready").status_code == 200, 300)

    def jobs(self) -> list[dict[str, Any]]:
        """As the service tells of them, the newest first."""
        return list(patient.get(f"{self.url}/v1/jobs", params={"limit": 200}).json()["jobs"])

    def submit(self, data: bytes, name: str = "photo.png", **options: Any) -> dict[str, Any]:
        """Send a photo as the page does, past the page."""
        form = {"until": "preview", "options": json.dumps({**QUICK, **options})}
        answer = patient.post(f"{self.url}/v1/jobs", data=form, files={"file": (name, data)})
        assert answer.status_code == 202, answer.text
        return self.ended(answer.json()["id"])

    def again(self, job: str, **options: Any) -> httpx2.Response:
        return patient.post(f"{self.url}/v1/jobs/{job}/again", json={**QUICK, **options})

    def ended(self, job: str) -> dict[str, Any]:
        until(lambda: self.get(job)["state"] not in ("queued", "running"))
        return self.get(job)

    def delete(self, job: str) -> None:
        patient.delete(f"{self.url}/v1/jobs/{job}")

    def get(self, job: str) -> dict[str, Any]:
        return dict(patient.get(f"{self.url}/v1/jobs/{job}").json())


def gradient(width: int = 96, height: int = 64, kind: str = "PNG", **more: Any) -> bytes:
    """A photo whose halves can be told apart."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    values = np.stack([across, down, 255 - across], -1).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind, **more)
    return stream.getvalue()


def file(data: bytes, name: str = "photo.png") -> Any:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def choose(page: Page, **options: Any) -> None:
    """Type into the form."""
    for part in ("#rest", "#expert"):
        if page.locator(part).get_attribute("open") is None:
            page.locator(f"{part} summary").click()
    for name, value in options.items():
        page.locator(f"#fields [name={name}]").fill(str(value))


def open_photo(page: Page, data: bytes, name: str = "photo.png", **options: Any) -> None:
    """Choose settings that tiny networks are quick with, open a photo, and wait for its clean preview."""
    choose(page, **({**QUICK, **options}))
    page.locator("#file").set_input_files(file(data, name))
    painted(page)
    expect(page.locator("#restore")).to_be_enabled()


def painted(page: Page, number: int = 0) -> None:
    """Wait until a job is done and what it made is on the screen."""
    expect(variants(page).nth(number)).to_have_attribute("data-state", "done")
    expect(variants(page).nth(number)).to_have_attribute("aria-busy", "false")


def variants(page: Page) -> Locator:
    return page.locator(".variant:not([hidden])")


def described(page: Page, number: int = 0) -> Locator:
    return variants(page).nth(number).locator(".what")


def pixels(image: Locator) -> np.ndarray[Any, Any]:
    """What an image on the page shows."""
    address = image.evaluate(
        "async image => { await image.decode(); const canvas = document.createElement('canvas');"
        " [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];"
        " canvas.getContext('2d').drawImage(image, 0, 0); return canvas.toDataURL(); }"
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


def layer(page: Page, name: str, number: int = 0) -> Locator:
    return variants(page).nth(number).locator(f".sheet.{name} img")


def scale(page: Page) -> float:
    """CSS pixels for one of the picture; the same in every layer of every pane."""
    found = page.eval_on_selector_all(
        ".variant:not([hidden]) .sheet", "sheets => sheets.map(sheet => getComputedStyle(sheet).transform)"
    )
    assert len(set(found)) == 1
    return float(re.split(r"[(,]", found[0])[1])


def saved(folder: Path, data: bytes, name: str) -> Path:
    (folder / name).write_bytes(data)
    return folder / name
