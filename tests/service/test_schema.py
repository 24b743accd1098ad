"""The schema says what `options.py` says, and the running service does what the schema says."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service import patient
from service.serving import Server, until
from supir.errors import OptionError
from supir.options import GOES_WITH, PRESETS, TRADE_OFFS, RestoreOptions, restore_options
from supir.options.audit import AuditOptions
from supir.options.packages import FACES, lacking
from supir.prompts import NEGATIVE_PROMPT, POSITIVE_PROMPT
from supir.service.limits import new_key

OWN = ("file", "options", "format", "until", "preview_side", "preview_seconds", "crop", "preset", "audit")


@pytest.fixture
def schema(server: Server) -> dict[str, Any]:
    return dict(patient.get(f"{server.url}/openapi.json").json())


def test_fields_are_those_of_the_options(server: Server, schema: dict[str, Any]) -> None:
    submit = schema["paths"]["/v1/jobs"]["post"]
    form = submit["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    whole, told = form["options"]["properties"], patient.get(f"{server.url}/v1/options").json()
    assert list(form) == [*OWN, *RestoreOptions.fields(), *AuditOptions.fields()]
    assert list(whole) == ["preset", "audit", *RestoreOptions.fields(), *AuditOptions.fields()]
    assert told["audit_options"] == {name: form[name] for name in ("audit", *AuditOptions.fields())}
    assert told["audit_defaults"] == {"audit": False, **dataclasses.asdict(AuditOptions())}
    assert form["preset"]["enum"] == list(PRESETS)
    for name, spec in RestoreOptions.fields().items():
        assert form[name] == told["options"][name]
        assert whole[name] == {"anyOf": [form[name], {"type": "null"}]}
        field = form[name]
        assert field["description"].startswith(spec.doc)
        assert field.get("enum", []) == list(spec.choices)
        if spec.is_number:
            number = field["anyOf"][0] if spec.may_be_off else field
            assert (number["minimum"], number["maximum"]) == (spec.low, spec.high)
            for bound, beyond in ((number["minimum"], -1), (number["maximum"], 1)):
                step = 1 if number["type"] == "integer" else abs(bound) / 10 + 0.1
                with pytest.raises(OptionError, match=name):
                    restore_options(**{name: bound + beyond * step})
    assert told["presets"]["fast"] == dataclasses.asdict(restore_options("fast"))
    assert told["trade_offs"] == TRADE_OFFS
    of_faces = [] if lacking(FACES) is None else ["faces", "likeness", "min_face_similarity"]
    assert (told["same_presets"], told["own_presets"], list(told["unused"])) == (
        {},
        [],
        ["see_larger", "first", *of_faces],
    )
    assert told["goes_with"] == GOES_WITH
    assert sorted(TRADE_OFFS) == sorted(PRESETS)
    assert told["words"] == {"positive_prompt": POSITIVE_PROMPT, "negative_prompt": NEGATIVE_PROMPT}


@pytest.fixture(scope="module")
def keyed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    folder = tmp_path_factory.mktemp("schema")
    key, lines = new_key("schema")
    (folder / "keys.toml").write_text(lines)
    server = Server(folder, model, "--keys", folder / "keys.toml", "--grace", 0)
    yield server, key
    assert server.stop() == 0
    assert server.lines("mistake of ours") == []


def test_every_route_is_known_and_needs_a_key(keyed: tuple[Server, str]) -> None:
    schema = patient.get(f"{keyed[0].url}/openapi.json").json()
    found = {(method, path) for path, methods in schema["paths"].items() for method in methods}
    job = "/v1/jobs/{job}"
    assert found == {
        ("post", "/v1/jobs"), ("get", "/v1/jobs"), ("get", job), ("delete", job), ("post", f"{job}/cancel"),
        ("get", f"{job}/events"), ("get", f"{job}/result"), ("get", f"{job}/preview"), ("get", f"{job}/audit"),
        ("get", f"{job}/audit/overlay"), ("get", "/v1/options"),
        ("post", f"{job}/again"), ("get", f"{job}/views/{{view}}"), ("get", "/v1/events"),
        ("post", "/v1/results"), ("post", "/v1/plan"), ("post", "/v1/code"),
        ("get", "/metrics"), ("get", "/health"), ("get", "/health/ready"),
    }  # fmt: skip
    for method, path in found:
        assert ("security" in schema["paths"][path][method]) == (not path.startswith("/health")), path


def test_without_keys_the_schema_asks_for_none(schema: dict[str, Any]) -> None:
    assert "securitySchemes" not in schema["components"]


def test_a_wrong_method_is_told_the_right_ones(server: Server) -> None:
    answer = httpx2.put(f"{server.url}/v1/jobs")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


SUBMIT = "submit_v1_jobs_post"


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        ("--phases", "coverage,stateful"),
        ("--phases", "fuzzing", "--exclude-operation-id", SUBMIT),  # it cannot make wrong forms with files at random
        ("--phases", "fuzzing", "--include-operation-id", SUBMIT, "--mode", "positive"),
    ],
    ids=["coverage", "fuzzing", "submissions"],
)
def test_schemathesis_finds_nothing(keyed: tuple[Server, str], tmp_path: Path, part: tuple[str, ...]) -> None:
    """Generated requests, valid and not. A random file is no picture, so that submissions may be refused."""
    server, key = keyed
    until(lambda: patient.get(f"{server.url}/health/ready").status_code == 200)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--checks", "all"]
    command += ["--exclude-operation-id", "all_events_v1_events_get"]  # which has no end
    command += ["--exclude-checks", "positive_data_acceptance", "--header", f"Authorization: Bearer {key}"]
    command += ["--max-examples", "40", "--seed", "1", "--no-color", "--request-timeout", "120", *part]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ generated, \d+ passed", done.stdout), done.stdout
    print(done.stdout[-600:])
