"""Options of the test run; here and not in tests/parity so that they exist whichever test path pytest is given."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

# On some processors MKL's sums depend on how memory happens to be aligned, and its exponential rounds differently than
# where the parity arrays were recorded: one last bit, which the time embedding of step 999 turns into 6e-5. This asks
# for the path that all processors have. MKL reads it at its first call.
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")

os.environ["LC_ALL"] = "C.UTF-8"  # what the command says is compared in English

if "XDG_CACHE_HOME" not in os.environ:  # what is kept of this run is not for the user, nor for the next run
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="supir-cache-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores already; threads that wait for one another cost minutes

DEFAULT_FIXTURES = Path(__file__).parent / "parity" / "fixtures"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fixtures DIR`: pytest has a `--fixtures` of its own, a listing; that one stays reachable as `--funcargs`."""
    actions = parser.optparser._option_string_actions
    if "--fixtures" in actions:
        actions.pop("--fixtures").option_strings.remove("--fixtures")
    parser.addoption(
        "--fixtures",
        type=Path,
        dest="reference_fixtures",
        default=DEFAULT_FIXTURES,
        metavar="DIR",
        help="folder of recorded reference arrays that tests/parity replays (default: tests/parity/fixtures)",
    )
    load = parser.getgroup("the service under load (tests/service/test_load.py)")
    load.addoption("--load-seconds", type=float, default=20.0, metavar="N", help="for how long clients ask (20)")
    load.addoption("--load-model", choices=("tiny", "bundled"), default="tiny", help="what the service opens (tiny)")


@pytest.fixture(autouse=True)
def _same_chance_every_run() -> None:
    """Tests that draw from torch's own generator see the same numbers in every run and any order."""
    torch.manual_seed(0)
