"""What enlarged a picture is undone."""

from __future__ import annotations

import torch
from torch import Tensor

from supir.image import resize
from supir.models.enlargement import unenlarged


def _noise(height: int, width: int) -> Tensor:
    """The hardest pictures there are."""
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_an_enlargement_is_undone() -> None:
    small = _noise(20, 24)
    found = unenlarged(resize(small, 80, 96, limits=None))
    assert (found - small).abs()[..., 2:-2, 2:-2].max() < 0.02, "within 3 grey levels"
    flat = torch.full((1, 3, 16, 24), 0.25)
    torch.testing.assert_close(unenlarged(flat), torch.full((1, 3, 4, 6), 0.25), rtol=0, atol=1e-3)
