"""Runs cases of this folder in a process of its own, where the simulated device is registered."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CASES = {
    "pictures": ("case_device.py", "case_pipeline.py", "case_offload.py"),
    "networks": ("case_networks.py", "case_commands.py", "case_training.py"),
}
"""Two processes, since one would be the last and longest of a run on two processors."""


def pytest_in_a_process(cases: Sequence[str], *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run cases, files of this folder or single ones in them, with options of pytest and environment variables."""
    fixed = ["-o", "python_files=case_*.py", "-q", "-p", "no:cacheprovider"]
    paths = [str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "pytest", *(str(HERE / case) for case in cases), *fixed, *options]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def run_cases(kind: str, which: str) -> None:
    """Run the files of a kind, those marked slow or not, and assert that they passed."""
    assert sorted(name for names in CASES.values() for name in names) == sorted(p.name for p in HERE.glob("case_*.py"))
    done = pytest_in_a_process(CASES[kind], "-m", which)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"(\d+) passed", done.stdout) is not None, "no case was run"
    print(done.stdout.strip().splitlines()[-1])
