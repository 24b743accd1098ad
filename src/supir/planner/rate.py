"""How many operations a second this machine makes, from half a second of matrix multiplication."""

from __future__ import annotations

import time

import torch

SIDE = 1024
SECONDS = 0.5
EFFICIENCY = 0.75
"""Share of the matrix-multiply peak that a full-size call reaches (`make bench`); thin networks reach less."""


def measured_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second that networks of ``dtype`` can be expected to reach on ``device``."""
    left, right = (torch.ones(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
    torch.mm(left, right)
    times = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        # Reading a number back waits for a GPU to finish.
        float(torch.mm(left, right)[0, 0])
        times.append(time.perf_counter() - start)
    return EFFICIENCY * 2 * SIDE**3 / min(times)
