"""How near a replay must come to what is recorded."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_near(found: Tensor, expected: Tensor, tolerance: float, what: str = "") -> None:
    """Every element within `tolerance`, absolutely."""
    assert found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, recorded {tuple(expected.shape)}"
    error = float((found.double() - expected.double()).abs().max())
    assert error <= tolerance, f"{what}: off by {error:.3g}, {tolerance:.3g} is allowed"


def assert_relatively_near(found: Tensor, expected: Tensor, tolerance: float, what: str = "") -> None:
    """Every element within `tolerance` times the largest recorded magnitude."""
    assert torch.isfinite(expected).all()
    assert_near(found, expected, tolerance * float(expected.abs().max()), what)
