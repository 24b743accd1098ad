"""Who may ask, for how much, and that nobody sees what is another's."""

from __future__ import annotations

import sqlite3
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service import patient
from service.serving import LONG, QUICK, Server, picture, until
from supir.cli.main import app
from supir.client import Client
from supir.errors import (
    BusyError,
    ImageTooLargeError,
    JobExpiredError,
    JobNotFoundError,
    KeyRefusedError,
    OptionError,
    UploadTooLargeError,
)
from supir.service.limits import Client as Owner
from supir.service.limits import Limits, RateLimiter, new_key, read_keys, who


@pytest.fixture(scope="module")
def keyed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, str]]:
    """A server with two keys, small limits, a queue of four; it looks every ten seconds for what has expired."""
    folder = tmp_path_factory.mktemp("keyed")
    (big, big_lines), (small, small_lines) = new_key("big"), new_key("small")
    limits = "queued = 2\nmegapixels = 0.01\nmegabytes = 0.02\n"
    (folder / "keys.toml").write_text(big_lines + small_lines + limits)
    server = Server(folder, model, "--keys", folder / "keys.toml", "--queue", 4, "--keep", "40s")
    yield server, big, small
    assert server.stop() == 0
    log = (folder / "log").read_text()
    assert big not in log
    assert small not in log


def test_without_a_key_nothing_but_health(keyed: tuple[Server, str, str]) -> None:
    server, big, _ = keyed
    for path in ("/v1/jobs", "/v1/options", "/metrics", f"/v1/jobs/{'0' * 32}/result"):
        for headers in ({}, {"Authorization": "Bearer supir_wrong"}, {"Authorization": f"Basic {big}"}):
            answer = patient.get(server.url + path, headers=headers)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert patient.get(f"{server.url}/health").status_code == 200
    with server.client("supir_wrong") as client, pytest.raises(KeyRefusedError, match="not known here"):
        client.submit(picture(), **QUICK)


@pytest.mark.slow
def test_one_key_does_not_see_the_other_s(keyed: tuple[Server, str, str]) -> None:
    server, big, small = keyed
    with server.client(big) as mine, server.client(small) as theirs:
        job = mine.submit(picture(), idempotency_key="same", **QUICK)
        asks = [theirs.get, theirs.result, theirs.preview, theirs.cancel, theirs.delete, theirs.wait]
        for ask in asks:
            with pytest.raises(JobNotFoundError):
                ask(job)
        with pytest.raises(JobNotFoundError):
            list(Client(server.url, small).events(job))
        assert list(theirs.jobs()) == []
        other = theirs.submit(picture(), idempotency_key="same", **QUICK)
        assert other.id != job.id
        assert [each.id for each in theirs.jobs()] == [other.id]
        assert mine.wait(job).state == "done"
        assert theirs.wait(other).state == "done"
        assert theirs.options()["limits"]["queued"] == 2


def test_limits_of_a_key(keyed: tuple[Server, str, str]) -> None:
    server, big, small = keyed
    with server.client(small) as client:
        with pytest.raises(ImageTooLargeError, match=r"allowed are 0\.01 for this key"):
            client.submit(picture(0, 3000, 1, "JPEG") and picture(0, 110, 100, "JPEG"), **QUICK)
        with pytest.raises(UploadTooLargeError, match=r"more than 0\.02 megabytes"):
            client.submit(picture(0, 100, 100), **QUICK)
    with server.client(big) as client:
        client.wait(client.submit(picture(0, 110, 100, "JPEG"), **{**QUICK, "num_steps": 1}))


def test_a_full_queue_says_when_to_come_back(keyed: tuple[Server, str, str]) -> None:
    server, big, small = keyed
    with server.client(big) as mine, server.client(small) as theirs:
        jobs = [theirs.submit(picture(seed), idempotency_key=f"f{seed}", **LONG) for seed in range(2)]
        with pytest.raises(BusyError, match="this key has 2 jobs waiting or at work; 2 are allowed") as caught:
            theirs.submit(picture(2), **LONG)
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 1
        more = [mine.submit(picture(seed), **LONG) for seed in (3, 4)]
        with pytest.raises(BusyError, match="4 jobs are waiting or at work; this service takes 4"):
            mine.submit(picture(5), **LONG)
        assert theirs.submit(picture(0), idempotency_key="f0", **LONG).id == jobs[0].id, "a repeat needs no room"
        answer = patient.post(
            f"{server.url}/v1/jobs", files={"file": picture(6)}, headers={"Authorization": f"Bearer {big}"}
        )
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1
        for owner, each in ((theirs, jobs), (mine, more)):
            for job in each:
                owner.cancel(job)
        until(lambda: all(theirs.get(job).state == "cancelled" for job in jobs))
        assert mine.wait(mine.submit(picture(6), **QUICK)).state == "done"


@pytest.mark.slow
def test_results_expire(keyed: tuple[Server, str, str]) -> None:
    server, big, _ = keyed
    with server.client(big) as client:
        job = client.wait(client.submit(picture(8), **QUICK))
        assert job.expires is not None
        assert (server.data / "jobs" / job.id).exists()
        with sqlite3.connect(server.data / "service.sqlite") as database:
            database.execute("UPDATE job SET finished = finished - 3600 WHERE id = ?", (job.id,))
        until(lambda: client.get(job).state == "expired")
        with pytest.raises(JobExpiredError, match="is gone; submit it again"):
            client.result(job)
        until(lambda: not (server.data / "jobs" / job.id).exists())


def test_a_new_key_is_shown_once_and_lets_in(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--new-key", "studio"])
    assert done.exit_code == 0
    key = done.stderr.split()[-1]
    assert key not in done.stdout
    (tmp_path / "keys.toml").write_text(done.stdout)
    found = read_keys(tmp_path / "keys.toml", Limits(queued=7))
    assert who(found, key).name == "studio"
    assert found[0].limits.queued == 7
    for wrong in ("", key[:-1], key + "x", "\ud800"):
        with pytest.raises(KeyRefusedError):
            who(found, wrong)
    assert "sha256" in tomllib.loads(done.stdout)["key"][0]
    assert CliRunner().invoke(app, ["serve", "--new-key", "../x"]).exit_code == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lists no key"),
        ("[[key]]\n", "name is None"),
        ('[[key]]\nname = "a"\nsha256 = "12"\n', "64 digits"),
        (new_key("a")[1] + "speed = 3\n", "'speed' is not a limit"),
        (new_key("a")[1] + "queued = 0\n", "queued is 0"),
        (new_key("a")[1] + new_key("a")[1], "two keys have the same name"),
        ("nonsense", "cannot be read"),
    ],
)
def test_files_of_keys_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(OptionError, match=said):
        read_keys(tmp_path / "keys.toml", Limits())


def test_the_pace_of_requests() -> None:
    pace, owner = RateLimiter(), Owner(name="a", limits=Limits(requests_a_minute=60))
    for _ in range(60):
        pace.check(owner, 100.0)
    with pytest.raises(BusyError, match="60 requests a minute; wait 1 s"):
        pace.check(owner, 100.5)
    pace.check(owner, 101.1)
    pace.check(Owner(name="b", limits=Limits(requests_a_minute=1)), 101.1)
    with pytest.raises(BusyError):
        pace.check(owner, 101.2)


@pytest.mark.parametrize("keep", ["24", "0h", "soon", "-1h"])
def test_wrong_usage(keep: str, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["serve", "--keep", keep, "--data", str(tmp_path / "d")]).exit_code == 2


def test_others_are_let_in_only_with_keys_or_on_demand(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "d")])
    assert done.exit_code == 2
    assert "--insecure" in done.stderr
    assert not (tmp_path / "d").exists()
