"""The commands of the README are typed as they stand, one after another, where a newcomer types them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_RUN = re.compile(r"<!-- not run: [a-z][^>]+ -->\n")
"""Stands before a block that a test cannot run, with the reason."""
BLOCK = re.compile(rf"({NOT_RUN.pattern})?```(sh|python)\n(.*?)```", re.DOTALL)


def blocks(text: str) -> list[tuple[str, str, bool]]:
    """Language, text and whether it is run, of each block of commands."""
    return [(match[2], match[3], match[1] is None) for match in BLOCK.finditer(text)]


def test_what_is_not_run_says_why() -> None:
    text = (ROOT / "README.md").read_text()
    found = blocks(text)
    assert len(found) == len(re.findall(r"^```(?:sh|python)$", text, re.MULTILINE))
    assert sum(run for _, _, run in found) >= 4
    assert text.count("<!-- not run") == sum(not run for _, _, run in found), "each stands before a block"


@pytest.mark.slow
def test_the_blocks_of_the_readme_in_order(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    ran = 0
    for language, commands, run in blocks((ROOT / "README.md").read_text()):
        if not run or "make " in commands:  # which are the test run itself, and the demo that CI runs before it
            continue
        program = ["bash", "-euxo", "pipefail", "-c"] if language == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*program, commands], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert language != "sh" or "torchao" not in done.stderr, "libraries have no word in what a command says"
        ran += 1
    assert ran >= 4
    made = [
        "examples/photo.restored.jpg",
        "sharp.png",
        "sharp.compare.png",
        "plain.png",
        "restored.png",
        "batch/photo.jpg",
    ]
    assert [name for name in made if not (tmp_path / name).is_file()] == []
