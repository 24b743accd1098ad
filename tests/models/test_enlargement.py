"""Enlarging and reducing inside a network: as the pipeline does it, and undone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from supir.image import resize
from supir.models.enlargement import beyond_enlargement, enlarged, reduced, unenlarged
from supir.models.restorers import DenseRestorer


def _noise(height: int, width: int) -> Tensor:
    """The hardest pictures there are."""
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _inside(pictures: Tensor, border: int) -> Tensor:
    return pictures[..., border:-border, border:-border]


@pytest.mark.parametrize("factor", [2, 4])
def test_both_are_the_pipelines_but_at_the_borders(factor: int) -> None:
    small, large = _noise(20, 24), _noise(20 * factor, 24 * factor)
    wanted = resize(small, 20 * factor, 24 * factor, limits=None)
    torch.testing.assert_close(_inside(enlarged(small, factor), 8), _inside(wanted, 8), rtol=0, atol=1e-5)
    wanted = resize(large, 20, 24, limits=None)
    torch.testing.assert_close(_inside(reduced(large, factor), 3), _inside(wanted, 3), rtol=0, atol=1e-5)
    flat = torch.full((1, 3, 16, 24), 0.25)
    torch.testing.assert_close(enlarged(flat, factor), torch.full((1, 3, 16 * factor, 24 * factor), 0.25))
    torch.testing.assert_close(reduced(flat, factor), torch.full((1, 3, 16 // factor, 24 // factor), 0.25))


def test_an_enlargement_is_undone() -> None:
    small = _noise(20, 24)
    found = unenlarged(resize(small, 80, 96, limits=None))
    assert (found - small).abs()[..., 2:-2, 2:-2].max() < 0.02, "within 3 grey levels"


def test_what_an_enlargement_could_not_show_is_found() -> None:
    sharp = _noise(80, 96)
    by_four, by_two = (resize(_noise(80 // by, 96 // by), 80, 96, limits=None) for by in (4, 2))
    none, some, much = (float(_inside(beyond_enlargement(each), 12).mean()) for each in (by_four, by_two, sharp))
    assert none < 0.005
    assert none < 10 * none < some < much


def test_a_network_that_zooms_sees_it_larger_and_gives_it_back_at_its_size() -> None:
    torch.manual_seed(0)
    network = DenseRestorer(1, sees_finer=True).requires_grad_(False)
    picture = _noise(16, 24)
    found = network(picture, zoom=2)
    assert found.shape == picture.shape
    torch.testing.assert_close(found, network(reduced(network(enlarged(picture, 2)), 2)))
    torch.nn.init.constant_(network.conv_kept.bias, 100.0)  # keep all of the input
    smooth = resize(_noise(4, 6), 16, 24, limits=None)
    torch.testing.assert_close(_inside(network(smooth, zoom=4), 4), _inside(smooth, 4), rtol=0, atol=0.05)


def test_a_sharp_picture_is_left_alone_by_who_sees_what_is_finer() -> None:
    torch.manual_seed(0)
    sharp = _noise(32, 32)
    network, blind = (DenseRestorer(1, sees_finer=each).requires_grad_(False) for each in (True, False))
    assert (network(sharp) - sharp).abs().mean() < 0.02
    assert (blind(sharp) - sharp).abs().mean() > 0.3
