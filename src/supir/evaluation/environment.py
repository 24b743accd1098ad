"""What a benchmark was made with and by, and the paper's numbers to lay beside it."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from supir import __version__
from supir.files.report import markdown_table

__all__ = ["machine", "paper_table1"]


def machine() -> dict[str, Any]:
    """Version, commit where the source is a checkout, and the machine."""
    return {
        "supir": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else None,
    }


def _commit() -> str | None:
    """Of the checkout that this file lies in, with a plus where it was changed; None where it is installed."""
    here = Path(__file__).parent
    try:
        shown = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return shown.stdout.strip() or None


def paper_table1(recipes: Sequence[str]) -> str:
    """Table 1 of arXiv 2401.13627 for these recipes, as markdown; empty where it has none of them."""
    with Path(__file__).with_name("paper_table1.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    chosen = [row for row in rows if row[0] in recipes]
    return markdown_table([head, *chosen]) if chosen else ""
