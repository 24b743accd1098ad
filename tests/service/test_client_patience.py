"""A client that waits for a busy service: as long as it is asked to, and no longer than its patience."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx2
import pytest

from supir.client import Client
from supir.errors import BusyError, OptionError

WAITED: list[float] = []


def client(answers: Iterator[httpx2.Response], patience: float, monkeypatch: pytest.MonkeyPatch) -> Client:
    WAITED.clear()
    now = [100.0]

    def sleep(seconds: float) -> None:
        WAITED.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    found = Client("http://service", patience=patience)
    found._http = httpx2.Client(base_url="http://service", transport=httpx2.MockTransport(lambda _: next(answers)))
    return found


def answer(status: int, error: str, after: int | None = None) -> httpx2.Response:
    headers = {} if after is None else {"Retry-After": str(after)}
    return httpx2.Response(status, headers=headers, json={"error": error, "detail": "because"})


def test_it_waits_as_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([answer(429, "BusyError", 3), answer(503, "StorageError"), httpx2.Response(200, json={"a": 1})])
    assert client(answers, 4, monkeypatch).options() == {"a": 1}
    assert WAITED == [3, 1]


@pytest.mark.parametrize(("patience", "waited"), [(0, []), (6.5, [3, 3])])
def test_it_waits_no_longer_than_its_patience(
    patience: float, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BusyError, match="because"):
        client(iter([answer(429, "BusyError", 3)] * 9), patience, monkeypatch).options()
    assert waited == WAITED


def test_what_waiting_does_not_mend_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="because"):
        client(iter([answer(422, "OptionError")]), 600, monkeypatch).options()
    assert WAITED == []
