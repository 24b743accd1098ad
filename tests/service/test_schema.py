"""The schema says what `options.py` says, and the running service does what the schema says."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.serving import Server
from supir.errors import OptionError
from supir.options import OPTIONAL_NUMBERS, PRESETS, RestoreOptions, restore_options


@pytest.fixture
def schema(server: Server) -> dict[str, Any]:
    return dict(httpx.get(f"{server.url}/openapi.json").json())


def test_fields_are_those_of_the_options(server: Server, schema: dict[str, Any]) -> None:
    submit = schema["paths"]["/v1/jobs"]["post"]
    form = submit["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    whole, told = form["options"]["properties"], httpx.get(f"{server.url}/v1/options").json()
    names = [spec.name for spec in dataclasses.fields(RestoreOptions)]
    assert [name for name in form if name not in ("file", "options", "format", "preset")] == names
    assert form["preset"]["enum"] == list(PRESETS)
    for spec in dataclasses.fields(RestoreOptions):
        assert form[spec.name] == whole[spec.name] == told["options"][spec.name]
        field, allowed = form[spec.name], spec.metadata
        assert field["description"].startswith(allowed["doc"])
        assert field.get("enum", []) == list(allowed.get("choices", []))
        if "low" in allowed:
            number = field["anyOf"][0] if spec.name in OPTIONAL_NUMBERS else field
            assert (number["minimum"], number["maximum"]) == (allowed["low"], allowed["high"])
            for bound, beyond in ((number["minimum"], -1), (number["maximum"], 1)):
                step = 1 if number["type"] == "integer" else abs(bound) / 10 + 0.1
                with pytest.raises(OptionError, match=spec.name):
                    restore_options(**{spec.name: bound + beyond * step})
    assert told["presets"]["fast"] == dataclasses.asdict(restore_options("fast"))


def test_every_route_is_known_and_needs_a_key(schema: dict[str, Any]) -> None:
    found = {(method, path) for path, methods in schema["paths"].items() for method in methods}
    job = "/v1/jobs/{job}"
    assert found == {
        ("post", "/v1/jobs"), ("get", "/v1/jobs"), ("get", job), ("delete", job), ("post", f"{job}/cancel"),
        ("get", f"{job}/events"), ("get", f"{job}/result"), ("get", f"{job}/preview"), ("get", "/v1/options"),
        ("get", "/metrics"), ("get", "/health"), ("get", "/health/ready"),
    }  # fmt: skip
    for method, path in found:
        assert ("security" in schema["paths"][path][method]) == (not path.startswith("/health")), path


@pytest.mark.slow
def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    """Generated requests, valid and not. A random file is no picture, so that submissions may be refused."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--checks", "all"]
    command += ["--exclude-checks", "positive_data_acceptance", "--max-examples", "40", "--seed", "1", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900)
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"No issues found", done.stdout)
