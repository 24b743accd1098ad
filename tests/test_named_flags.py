"""Every option that a message names is one of the command that a reader would type it at."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click

from supir.cli.main import COMMANDS, load_command
from supir.options import PRESETS

SOURCE = Path(__file__).parents[1] / "src" / "supir"
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9](?![a-z0-9-])")
OF_OTHERS = {"--always", "--dirty", "--exclude", "--number", "--way"}
"""Options of git's, and of the process that makes negative samples."""


def options_of(command: click.Command, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Each command's words, and its options."""
    yield name, {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for inner, found in getattr(command, "commands", {}).items():
        yield from options_of(found, f"{name} {inner}".strip())


OPTIONS = dict(found for name in COMMANDS for found in options_of(load_command(name), name))


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a module that may be shown: all but its documentation."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield node.lineno, node.value


def test_every_option_that_a_message_names_exists() -> None:
    every = set().union(*OPTIONS.values()) | OF_OTHERS | {"--help", "--version"}
    named = 0
    for path in SOURCE.rglob("*.py"):
        for line, text in texts(path):
            for option in FLAG.findall(text):
                named += 1
                assert option in every, f"{path.name}:{line} names {option}, which no command has"
    assert named > 40


def test_documents_for_those_who_come_from_elsewhere_name_options_that_exist() -> None:
    root, every = SOURCE.parents[1], set().union(*OPTIONS.values())
    for name in ("docs/coming-from.md", "README.ko.md"):
        named = set(FLAG.findall((root / name).read_text(encoding="utf-8"))) - {"--index-url", "--depth"}
        assert len(named) > 5
        assert named <= every, (name, named - every)
    presets = re.findall(r"^\| `([a-z]+)` \|", (root / "README.ko.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(presets) == set(PRESETS)


def test_what_is_said_of_weights_names_options_of_the_conversion() -> None:
    """A missing part, a folder in the way: read by somebody who typed `supir convert`."""
    named = set()
    for module in ("convert", "gather", "hub", "kinds", "plan", "report", "formats"):
        for _, text in texts(SOURCE / "weights" / f"{module}.py"):
            named |= set(FLAG.findall(text))
    assert named <= OPTIONS["convert"] | {"--dtype"}
    assert {"--vae", "--text", "--lenient", "--overwrite"} <= named
