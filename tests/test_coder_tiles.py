"""The two tiles of the autoencoder: what is encoded and what is decoded at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from supir.pipeline import SupirPipeline
from tiny import tiny_components, tiny_pipeline

FACTOR = 8


def largest(pipeline: SupirPipeline, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[int, int]:
    """The longest sides, in pixels, of what the autoencoder is given to encode and to decode."""
    coder: Any = tiny_components()["autoencoder"]
    seen: dict[str, int] = {"encode_degraded": 0, "decode": 0}
    for name, unit in (("encode_degraded", 1), ("decode", FACTOR)):
        real = getattr(type(coder), name)

        def watched(self: Any, given: Tensor, *more: Any, name: str = name, unit: int = unit, real: Any = real) -> Any:
            seen[name] = max(seen[name], *(side * unit for side in given.shape[-2:]))
            return real(self, given, *more)

        monkeypatch.setattr(type(coder), name, watched)
    pipeline.preview_pixels(torch.zeros(1, 3, 256, 256), pipeline.options(min_size=64, **options))
    monkeypatch.undo()
    return seen["encode_degraded"], seen["decode"]


def test_each_of_the_two_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny_pipeline()
    assert largest(pipeline, monkeypatch, vae_tile=128) == (128, 128)
    assert largest(pipeline, monkeypatch, vae_tile=128, decoder_tile=256) == (128, 256)
    assert largest(pipeline, monkeypatch, vae_tile=256, decoder_tile=64) == (256, 64)
