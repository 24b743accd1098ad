"""The command ``supir`` on a machine that has the simulated device: ``python tests/simulated/commands.py restore ...``.

Worker processes import this file before anything else, so that they have the device too.
"""

from __future__ import annotations

from simulated import device as device

if __name__ == "__main__":
    from supir.cli.main import app

    app()
