"""docs/training.md is typed as it stands, but for fewer steps and processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from smoke_runs import ROOT

from test_command_blocks import blocks

pytestmark = pytest.mark.slow
FEWER = """#!{python}
import runpy, sys
command, *words = "{command}", *sys.argv[1:]
if "--num_processes" in words:
    words[words.index("--num_processes") + 1] = "2"
run = words[words.index("train") + 1] if "train" in words else ""
if "/" in run and "--dry-run" not in words:
    settings = ["steps=2", "batch=1", "crop=64", "workers=0", "warmup_steps=1"]
    settings += ["checkpoint_steps=1", "validation_steps=2"]
elif run == "negatives":
    settings = ["pictures=2", "size=64", "num_steps=2"]
else:
    settings = []
sys.argv = [command, *words, *(word for setting in settings for word in ("--set", setting))]
runpy.run_module("{module}", run_name="__main__")
"""
"""Stands for a command, and asks for little work."""


def test_the_page_word_for_word(photographs: Path, sdxl: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for command, module in (("supir", "supir.cli"), ("accelerate", "accelerate.commands.accelerate_cli")):
        (programs / command).write_text(FEWER.format(python=sys.executable, command=command, module=module))
        (programs / command).chmod(0o755)
    for name in ("PHOTOS", "MINE"):
        shutil.copytree(photographs, tmp_path / name)
    shutil.copy(photographs / "photo.jpg", tmp_path)
    shutil.copytree(sdxl, tmp_path / "SDXL")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    typed = [text for language, text, _ in blocks((ROOT / "docs" / "training.md").read_text()) if language == "sh"]
    assert len(typed) >= 4
    for commands in typed:
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", commands], cwd=tmp_path, env=environment, capture_output=True,
            text=True, timeout=1200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{commands}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    runs = ("ae", "prior", "encoder", "adaptor", "mine", "taught", "paper", "sharded")
    assert [name for name in runs if not (tmp_path / "runs" / name / "model").is_dir()] == []
    assert (tmp_path / "photo.restored.jpg").is_file()
    assert len(list((tmp_path / "negatives").glob("*.png"))) == 2
