"""The cases notice: each fails when the fault that it is there for is put back."""

from __future__ import annotations

import re
import sys

import pytest

from simulated.process import pytest_in_a_process
from simulated.put_back import FAULTS, VARIABLE


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="torch for macOS has an accelerator of its own")
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_is_put_back_is_noticed(name: str) -> None:
    done = pytest_in_a_process(
        [FAULTS[name].case], "-p", "simulated.put_back", "-p", "simulated.device", **{VARIABLE: name}
    )
    failed = re.findall(r"^FAILED \S*?(case_\w+\.py::.*?)(?: - |$)", done.stdout, re.MULTILINE)
    print(f"{name}: {failed}")
    assert failed == [FAULTS[name].case], done.stdout[-3000:] + done.stderr[-2000:]
