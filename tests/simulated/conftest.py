"""What the cases share: pipelines on both devices, and one comparison."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from tiny import tiny_components, tiny_pipeline

if TYPE_CHECKING:
    from supir.options import RestoreOptions
    from supir.pipeline import SupirPipeline

ROOT = Path(__file__).parents[2]
QUICK = {"min_size": 16, "num_steps": 2, "scale": 1.0}


def fresh_pipeline(**overrides: Any) -> SupirPipeline:
    """A tiny pipeline of components that belong to the caller alone."""
    parts = {
        name: copy.deepcopy(part) if isinstance(part, nn.Module) else part for name, part in tiny_components().items()
    }
    return tiny_pipeline(**(parts | overrides))


@functools.cache
def some_pixels(batch: int = 1, height: int = 64, width: int = 96) -> Tensor:
    """(B, 3, H, W) of noise in [-1, 1] on the processor; leave them as they are."""
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def fresh() -> SupirPipeline:
    """A tiny pipeline on the processor, to be moved as the case likes."""
    return fresh_pipeline()


@pytest.fixture(scope="session")
def there() -> SupirPipeline:
    """A tiny pipeline on the device, shared: leave it there."""
    return fresh_pipeline().to("sim")


@pytest.fixture(scope="session")
def near() -> SupirPipeline:
    """The same on the processor."""
    return tiny_pipeline()


@pytest.fixture(scope="session")
def same_as_on_the_processor(near: SupirPipeline) -> Callable[..., None]:
    """Asserts that pixels which the device made of `some_pixels` are those that the processor makes."""
    made: dict[tuple[str, int], Tensor] = {}

    def check(found: Tensor, options: RestoreOptions, batch: int = 1) -> None:
        key = repr(options), batch
        if key not in made:
            made[key] = near.restore_pixels(some_pixels(batch), options).pixels
        assert found.device.type == "sim"
        assert torch.allclose(found.cpu(), made[key], atol=1e-3)

    return check
