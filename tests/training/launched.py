"""Python with arguments, and all that it starts, run to its end or killed."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import psutil


def started(*command: object) -> subprocess.Popen[str]:
    """Python with these arguments."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(process: subprocess.Popen[str]) -> None:
    """End it and all that it started: launchers put workers into sessions of their own, where they would go on."""
    with suppress(psutil.NoSuchProcess):
        launcher = psutil.Process(process.pid)
        for each in (launcher, *launcher.children(recursive=True)):  # it first: it would start others in their place
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.communicate()


def ran(*command: object) -> str:
    """What Python said that was started with these arguments, when it has ended well."""
    process = started(*command)
    try:
        said, complained = process.communicate(timeout=1200)
    except subprocess.TimeoutExpired:
        killed(process)
        raise
    assert process.returncode == 0, complained[-3000:]
    return said
