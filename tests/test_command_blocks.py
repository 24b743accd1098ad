"""The commands of the README and of docs/ are typed as they stand, one after another, where a newcomer types them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = re.compile(r"<!-- not run: [a-z][^>]+ -->\n")
"""Stands before a block that a test cannot run, with the reason."""
BLOCK = re.compile(rf"({NOT_RUN.pattern})?```(sh|python)\n(.*?)```", re.DOTALL)
MADE = {
    "README": ["examples/photo.restored.jpg", "sharp.compare.png", "plain.png", "batch/photo.jpg", "restored.png"],
    "batch": ["restored/one.png", "restored/a/two.png", "restored/one.s9.png", "restored/b/three.jpg"],
    "captions": ["restored/one.png", "one.restored.jpg"],
    "data": ["SET/report.html", "TILES/report.html"],
    "evaluation": ["pairs/hq/astronaut.png", "restored/astronaut.png"],
    "regions": ["kept.png", "only.png", "mixed.png"],
}
"""What is there after the blocks of a page."""


def blocks(text: str) -> list[tuple[str, str, bool]]:
    """Language, text and whether it is run, of each block of commands."""
    return [(match[2], match[3], match[1] is None) for match in BLOCK.finditer(text)]


def photographs(folder: Path, page: str) -> None:
    """What the pages name: photographs with captions, as small as may be."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    small = Image.open(ROOT / "examples" / "photo.jpg").convert("RGB").resize((64, 48))
    for name in ("one.jpg", "scans/one.png", "scans/a/two.png", "old/b/three.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        small.save(folder / name)
    for name in ("scans/one.txt", "scans/a/two.txt", "wedding.txt"):
        (folder / name).write_text("Two people laugh.\n")
    (folder / "list.csv").write_text("path,preset\none.jpg,fidelity\n")
    (folder / "PHOTOS").mkdir()
    astronaut = Image.fromarray(np.asarray(data.astronaut()))
    if page == "data":  # of which half must be left large enough to keep
        astronaut = astronaut.resize((1024, 1024))
    astronaut.save(folder / "PHOTOS" / "astronaut.png")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_says_why(page: Path) -> None:
    text = page.read_text()
    found = blocks(text)
    assert len(found) == len(re.findall(r"^```(?:sh|python)$", text, re.MULTILINE))
    assert text.count("<!-- not run") == sum(not run for _, _, run in found), "each stands before a block"
    assert any(run for _, _, run in found) == (page.stem in MADE or page.stem == "training")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_in_order(page: Path, tmp_path: Path) -> None:
    commands_run = [block for block in blocks(page.read_text()) if block[2] and "make " not in block[1]]
    if not commands_run:  # make is the test run itself, and the demo that CI runs before it
        pytest.skip("no block of this page can be run here")
    photographs(tmp_path, page.stem)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    for language, commands, _ in commands_run:
        (tmp_path / "block.py").write_text(commands)  # a file, since workers import it
        program = ["bash", "-euxo", "pipefail", "-c", commands] if language == "sh" else [sys.executable, "block.py"]
        done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert language != "sh" or "torchao" not in done.stderr, "libraries have no word in what a command says"
    assert [name for name in MADE.get(page.stem, []) if not (tmp_path / name).is_file()] == []
