"""How many operations a second this machine makes, from half a second of matrix multiplication."""

from __future__ import annotations

import time

import torch

SIDE = 1024
SECONDS = 0.5
SHORTEST = 0.02
"""Seconds of a measurement: a single product takes a GPU microseconds, less than to start it and to wait for it."""
EFFICIENCY = 0.75
"""Share of the matrix-multiply peak that a full-size call reaches (`make bench`); thin networks reach less."""


def measured_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second that networks of ``dtype`` can be expected to reach on ``device``."""
    left, right = (torch.ones(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))

    def seconds(number: int) -> float:
        start = time.perf_counter()
        for _ in range(number):
            found = torch.mm(left, right)
        float(found[0, 0])  # waits for a GPU to finish
        return time.perf_counter() - start

    number = 1
    seconds(number)
    while (taken := seconds(number)) < SHORTEST:
        number *= 2
    fastest, end = taken, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        fastest = min(fastest, seconds(number))
    return EFFICIENCY * 2 * SIDE**3 * number / fastest
