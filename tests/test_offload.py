"""Weights that are not all on the device at once: what is refused. What works is tried on the simulated device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers.hooks.group_offloading import GroupOffloadingType

from supir.errors import OptionError
from tiny import tiny_pipeline


@pytest.mark.parametrize("kind", ["block_level", GroupOffloadingType.BLOCK_LEVEL])
@pytest.mark.parametrize("part", ["pipeline", "autoencoder", "unet", "adaptor"])
def test_whole_blocks_do_not_come_and_go(part: str, kind: str) -> None:
    """Parts of blocks are run by hand, so hooks on the blocks would not bring their weights."""
    pipeline = tiny_pipeline()
    offload: Callable[..., None] = (pipeline if part == "pipeline" else getattr(pipeline, part)).enable_group_offload
    with pytest.raises(OptionError, match=r"offload_type is .*block.*must be 'leaf_level'"):
        offload(torch.device("cpu"), offload_type=kind, num_blocks_per_group=1)
    assert not any(hasattr(module, "_diffusers_hook") for module in pipeline.unet.modules())
