"""Words for each tile: what one tile shows is said to it alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from supir.errors import OptionError
from supir.options import RestoreOptions
from supir.pipeline import SupirPipeline
from supir.restoration.backoff import smaller_tiles
from test_pipeline import picture
from tiny import tiny_pipeline

TILES = {"tile": 64, "min_size": 64, "scale": 1.0, "num_steps": 2, "color_fix": "none", "tile_overlap": 16}


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    return tiny_pipeline()


def restored(pipeline: SupirPipeline, **options: object) -> Tensor:
    """The latent of a picture of 160x64 pixels, which has four tiles in a row."""
    pixels = picture(64, 160).pixels[None]
    return pipeline.restore_pixels(pixels, pipeline.options(**TILES | options)).latent


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_prompt_for_each_tile(pipeline: SupirPipeline, guidance: float, batch: int) -> None:
    given = {"text_guidance": guidance, "text_guidance_start": "off", "tile_batch": batch}
    alike = restored(pipeline, tile_prompts="a cat|a cat | a cat|a cat", **given)
    torch.testing.assert_close(alike, restored(pipeline, prompt="a cat", **given), atol=5e-4, rtol=0)
    changed = (restored(pipeline, tile_prompts="a cat|a cat|a cat|the sea", **given) - alike).abs().amax((0, 1, 2))
    assert changed[-6:].min() > 3e-3  # the last tile begins at 12 of 20 latent pixels
    assert changed[:8].max() < 1e-5  # up to where the tile begins that overlaps it


def test_as_many_prompts_as_tiles(pipeline: SupirPipeline) -> None:
    with pytest.raises(OptionError, match="holds 2 prompts, and the picture has 4 tiles: 1 rows of 4"):
        restored(pipeline, tile_prompts="sky|sea")


def test_tiles_with_words_are_not_halved() -> None:
    options = RestoreOptions(tile=256, tile_batch=4, tile_prompts="sky|sea")
    fewer = smaller_tiles(options, 1024)
    assert fewer is not None
    assert fewer.tile_batch == 2
    assert smaller_tiles(options.replace(tile_batch=1), 1024) is None
    assert smaller_tiles(options.replace(tile_batch=1, tile_prompts=""), 1024) is not None
