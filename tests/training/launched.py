"""Python with arguments, and all that it starts, in a group of processes of its own: run to its end, or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress


def started(*command: object) -> subprocess.Popen[str]:
    """Python with these arguments."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def killed(process: subprocess.Popen[str]) -> None:
    """End it and all that it started: processes that wait for one another would do so for half an hour."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def ran(*command: object) -> str:
    """What Python said that was started with these arguments, when it and all that it started have ended well."""
    process = started(*command)
    try:
        said, complained = process.communicate(timeout=1200)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, complained[-3000:]
    return said
