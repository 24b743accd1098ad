"""Other websites, other machines, and those who only watch: what may and may not reach the page's server."""

from __future__ import annotations

import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from typer.testing import CliRunner

from caption.chat_server import Answer, ChatServer, completion
from service import patient
from service.serving import picture, until
from supir import image
from supir.cli.main import app
from web.conftest import Visit
from web.site import WebServer, choose, gradient, open_photo, saved

pytestmark = pytest.mark.slow  # minutes in a browser; the way through the page is in test_page.py

HOSTILE = """<!doctype html><meta charset=utf-8><body><script>
const form = new FormData();
form.append('file', new Blob([Uint8Array.from(atob('%s'), letter => letter.charCodeAt())]), 'evil.png');
(async () => {
  for (const [path, method, body, mode] of [
    ['v1/jobs', 'POST', form, 'no-cors'], ['v1/jobs', 'GET', undefined, 'cors'],
    ['v1/jobs/%s/cancel', 'POST', '', 'no-cors'], ['v1/jobs/%s/again', 'POST', '{}', 'no-cors'],
    ['v1/jobs/%s', 'DELETE', undefined, 'cors'],
  ]) {
    const read = fetch('%s/' + path, {method, body, mode}).then(answer => answer.text());
    await read.then(text => { document.title += text; }, () => {});
  }
  document.body.dataset.done = 'yes';
})();
</script>"""


@pytest.fixture
def hostile_page() -> Iterator[dict[str, str]]:
    """Another website, on this machine."""
    told = {"html": ""}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(told["html"].encode())

        def log_message(self, *_: object) -> None:
            pass

    other = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
    told["url"] = f"http://127.0.0.1:{other.server_port}/"
    yield told
    other.shutdown()
    other.server_close()


def test_another_website_cannot_drive_it(
    server: WebServer, visit: Visit, browser: Browser, hostile_page: dict[str, str]
) -> None:
    visit()
    photo = server.submit(picture(5))["id"]
    hostile_page["html"] = HOSTILE % (b64encode(picture()).decode(), photo, photo, photo, server.url)
    page = browser.new_page()
    page.goto(hostile_page["url"])
    expect(page.locator("body[data-done]")).to_be_attached()
    assert page.title() == ""  # it has read nothing
    page.close()
    assert [(job["id"], job["state"]) for job in server.jobs()] == [(photo, "done")]
    for path in ("/", "/web.js", "/v1/jobs", "/v1/events"):
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
            assert patient.get(server.url + path, headers=headers).status_code == 403, (path, headers)


def test_nobody_else_is_asked_and_nothing_inline_runs(server: WebServer, visit: Visit) -> None:
    page = visit()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    open_photo(page, gradient())
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((server.url, f"blob:{server.url}"))] == []
    policy = patient.get(server.url).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert patient.get(f"{server.url}/v1/options").headers["content-security-policy"].startswith("default-src 'none'")
    for name in ("/web_commands.py", "/../serve_commands.py", "/index.html"):
        assert patient.get(server.url + name).status_code in (404, 405), name


OPENS = """import sys
with open({path!r}, "w") as opened:
    opened.write(sys.argv[1])
"""


def test_a_key_for_other_machines_a_captioner_and_the_browser(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Browser
) -> None:
    """One server for all of it: it takes seconds to start."""
    (tmp_path / "opens.py").write_text(OPENS.format(path=str(tmp_path / "opened")))
    monkeypatch.setenv("BROWSER", f"{sys.executable} {tmp_path / 'opens.py'} %s")
    monkeypatch.setattr(WebServer, "command", ("web",))
    (tmp_path / "server").mkdir()
    with ChatServer() as chat, browser.new_context() as context:
        chat.script = [Answer(body=completion("A red <b>apple</b> on a table."))]
        flags = ("--host", "0.0.0.0", "--captioner", chat.url, "--caption-model", "tiny")
        server = WebServer(tmp_path / "server", model, *flags)
        try:
            until(lambda: (tmp_path / "opened").exists() and (tmp_path / "opened").read_text() == server.address)
            here, _, key = server.address.partition("#")
            here = f"http://127.0.0.1:{here.rstrip('/').rpartition(':')[2]}/"
            assert key.startswith("key=supir_")
            assert patient.get(f"{here}v1/jobs").status_code == 401
            page = context.new_page()
            page.goto(f"{here}#key=wrong")
            expect(page.get_by_role("alert")).to_contain_text("needs a key")
            page.goto(f"{here}#{key}")
            expect(page.locator("#status")).to_have_text("ready", timeout=120_000)
            assert page.url == here  # the key is out of sight
            open_photo(page, gradient())
            words = page.locator("#fields [name=prompt]")
            expect(words).to_have_value("A red b apple /b on a table.")
            [asked] = chat.pictures()
            assert asked.size == (96, 64)
            choose(page, prompt="A green apple.")
            page.locator("#restore").click()
            expect(page.locator(".tag.right").first).to_have_text("After")
            with page.expect_download() as downloading:
                page.get_by_role("button", name="Download").click()
            record = image.read_record(saved(tmp_path, Path(downloading.value.path()).read_bytes(), "made.png"))
            assert record["prompt"].startswith("A green apple. ")
            assert record["words_from"] == "edited"
            assert record["caption"] == "A red b apple /b on a table."
            assert record["captioner"].startswith("tiny, ")
        finally:
            ended = server.stop()
        assert ended == 0


def test_the_command(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["web", "--captioner", "beside"])
    assert shown.exit_code == 2
    assert "here it must be the folder of a model, a URL, or none" in " ".join(shown.output.replace("│", " ").split())
    assert CliRunner().invoke(app, ["web", "--keep", "long"]).exit_code == 2
