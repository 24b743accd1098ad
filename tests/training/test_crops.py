"""Tiles: sharp ones are preferred, and what counts as sharp."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from supir.training.photographs import SHARPNESS_PREFERENCE, Tiles


def test_the_first_tiles_are_drawn_more_often(tmp_path: Path) -> None:
    """The share of the first tenth is 0.1 to the power 1 / SHARPNESS_PREFERENCE."""
    levels = np.arange(20, dtype=np.uint8)
    np.save(tmp_path / "train.npy", np.broadcast_to(levels[:, None, None, None], (20, 16, 16, 3)))
    (tmp_path / "train_captions.json").write_text(json.dumps([f"photo {level}" for level in levels]))
    tiles, rng = Tiles(tmp_path), np.random.default_rng(0)
    drawn = []
    for _ in range(4000):
        crop = tiles.draw(rng, 8)
        assert crop.pixels.shape == (8, 8, 3)
        assert crop.caption == f"photo {crop.pixels[0, 0, 0]}"
        drawn.append(int(crop.pixels[0, 0, 0]))
    assert np.mean(np.array(drawn) < 2) == pytest.approx(0.1 ** (1 / SHARPNESS_PREFERENCE), abs=0.03)
    assert set(drawn) == set(range(20))
