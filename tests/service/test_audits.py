"""Results that are audited as they are made: the report and the overlay by HTTP, limits, and what is refused before."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service import patient
from service.serving import QUICK, Server, picture
from supir import image
from supir.audit import audit, open_witness
from supir.errors import JobNotFoundError, JobNotReadyError, OptionError
from supir.jobs.model import Model
from supir.options import RestoreOptions, packages
from supir.options.audit import AuditOptions
from supir.service.validation import SubmissionOptions, check_auditing, chosen_options

AUDITED: dict[str, Any] = {**QUICK, "audit": True, "letters": False, "seeds": 1}
PAST = {**AUDITED, "max_invented": 0, "max_contradictions": 0}
"""Noise that networks of random weights have seen is past one of these."""


@pytest.mark.slow
def test_a_report_and_an_overlay_are_those_of_the_library(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        job = client.submit(picture(40), **PAST)
        assert job.told["audit_options"] == dataclasses.asdict(
            AuditOptions(letters=False, max_invented=0, max_contradictions=0)
        )
        shares = [event.job.told["audit_progress"] for event in client.events(job) if event.job]
        done = client.wait(job)
        assert shares[-1] is None
        assert {0, 0.5} & set(shares), "it is told how far the audit is"
        (tmp_path / "before.png").write_bytes(picture(40))
        result = client.save(job, tmp_path / "after.png")
        asked = AuditOptions(letters=False, max_invented=0, max_contradictions=0)
        before, after = image.read(tmp_path / "before.png"), image.read(result)
        expected = audit(before, after, asked, witness=open_witness("cpu"), record=image.read_record(result))
        report = client.audit(job)
        assert report == expected.as_json()
        image.write(expected.overlay(), tmp_path / "overlay.png")
        np.testing.assert_array_equal(Image.open(io.BytesIO(client.overlay(job))), Image.open(tmp_path / "overlay.png"))
        assert done.state == "done"
        assert done.audit is not None
        assert done.audit["past_limits"] == report["past_limits"] != []
        assert done.audit["says"] == str(expected)
        assert done.audit["guarantee"] == "another model made the result than the calibration's"
        assert done.audit["returned"] is None


def test_past_a_limit_the_preview_is_returned(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        plain = client.wait(client.submit(picture(41), **QUICK))
        assert plain.audit is None
        doubted = client.wait(client.submit(picture(41), on_doubt="preview", **PAST))
        assert doubted.audit is not None
        assert doubted.audit["returned"] == "preview"
        record = image.read_record(client.save(doubted, tmp_path / "doubted.png"))
        assert record is not None
        assert record["on_doubt"] == "preview"
        assert client.result(doubted) != client.result(plain)
        notice = patient.post(f"{server.url}/v1/results", json={"jobs": [doubted.id], "notice": True}).content
        assert doubted.audit["past_limits"][0].encode() in notice
        with pytest.raises(JobNotFoundError, match="asked for no audit; hand it in with audit=true"):
            client.audit(plain)


def test_what_cannot_be_audited_is_refused_before_it_is_queued(server: Server) -> None:
    with server.client() as client:
        number = len(list(client.jobs()))
        for options, said in (
            ({"max_invented": 0.5}, "max_invented says how the result is audited: ask for that too, by audit=true"),
            ({"audit": True, "until": "preview"}, "until=preview makes no result that could be audited"),
            ({"audit": True, "max_invented": 2}, "max_invented is 2; it must be a number from 0 to 1"),
            ({"audit": "yes"}, "audit is 'yes'; it must be true or false"),
            ({"audit": True, "level": 0.01, "false_alarms": 0.01}, "photographs"),
            ({"audit": True, "letters": False, "max_changed_words": 0}, "letters is False, so that no word is read"),
            ({"audit": True, "likeness": False, "min_face_similarity": 0.5}, "so that no face is compared"),
            ({"audit": True, "scale": 0.3}, "an audit needs 16 a side"),
            ({"audit": True, "on_doubt": "never"}, "on_doubt is 'never'; it must be one of keep, blend, preview"),
        ):
            with pytest.raises(OptionError, match=said):
                client.submit(picture(42), **{**QUICK, **options})
        assert len(list(client.jobs())) == number


def test_too_large_or_without_a_reader_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"4000 x 4000 pixels; those of up to 12 megapixels can be audited"):
        check_auditing(AuditOptions(), 2000, 2000, 2.0)
    check_auditing(AuditOptions(max_changed_words=0), 200, 200, 2.0)
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(
        OptionError, match=r"needs rapidocr, which is not installed.* where this service runs; or leave"
    ):
        check_auditing(AuditOptions(max_changed_words=0), 200, 200, 2.0)
    with pytest.raises(OptionError, match=r"dlib.* not installed.* where this service runs; or leave out the limit"):
        check_auditing(AuditOptions(min_face_similarity=0.5), 200, 200, 2.0)
    check_auditing(AuditOptions(), 200, 200, 2.0)  # which then says that neither was looked at
    asked = {"options": "{}", "faces": "gentle"}
    with pytest.raises(OptionError, match="dlib, which finds them, is not installed here"):
        chosen_options(asked, Model())


def test_an_audit_makes_another_request_and_takes_longer(server: Server) -> None:
    with server.client() as client:
        first = client.submit(picture(43), idempotency_key="audited", **AUDITED)
        with pytest.raises(JobNotReadyError, match="wait for its events"):
            client.overlay(first)
        with pytest.raises(OptionError, match="came with another picture or other options"):
            client.submit(picture(43), idempotency_key="audited", **{**AUDITED, "max_invented": 1})
        assert client.submit(picture(43), idempotency_key="audited", **AUDITED).id == first.id
        client.cancel(first)
    seconds = [
        patient.post(f"{server.url}/v1/plan", params={"width": 640, "height": 480}, json=asked).json()["seconds"]
        for asked in (QUICK, {**QUICK, "audit": True}, {**QUICK, "audit": True, "seeds": 4})
    ]
    assert seconds[0] < seconds[1] < seconds[2]
    told = patient.post(f"{server.url}/v1/plan", params={"width": 900, "height": 900}, json={"audit": True, "scale": 6})
    assert "can be audited" in told.json()["refused"]


def test_no_name_stands_for_two_options() -> None:
    kinds = (RestoreOptions, AuditOptions, SubmissionOptions)
    names = [name for kind in kinds for name in kind.fields()]
    assert len(set(names)) == len(names)
