"""The cases of the simulated accelerator: networks, commands, training."""

from __future__ import annotations

import sys

import pytest

from simulated.process import run_cases


@pytest.mark.skipif(sys.platform == "darwin", reason="torch for macOS has an accelerator of its own")
@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_networks_on_an_accelerator(which: str) -> None:
    run_cases("networks", which)
