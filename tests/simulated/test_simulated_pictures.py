"""The cases of the simulated accelerator: the device itself, pictures, offload."""

from __future__ import annotations

import sys

import pytest

from simulated.process import run_cases


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="torch for macOS has an accelerator of its own")
@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_pictures_on_an_accelerator(which: str) -> None:
    run_cases("pictures", which)
