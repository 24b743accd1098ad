"""Size embeddings, and the order in which features are joined."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from parity.reference_fixtures import ReferenceFixtures
from parity.tolerances import assert_near
from supir.models.text import TextTowers
from supir.models.unet import condition_vector

TOLERANCE = 1e-5
SIZE_EMBED_DIM = 256


def _vector(pooled: Tensor, sizes: list[float]) -> Tensor:
    time_ids = torch.tensor([sizes] * len(pooled))
    return condition_vector({"text_embeds": pooled, "time_ids": time_ids}, SIZE_EMBED_DIM)


def test_size_embeddings(fixtures: ReferenceFixtures) -> None:
    recorded = fixtures.tensors("conditioning")
    named = {name: re.fullmatch(r"(?:size|crop)_?(\d+)(?:_(\d+))?", name) for name in recorded}
    sizes = {name: [float(match[1]), float(match[2] or match[1])] for name, match in named.items() if match}
    assert sizes
    for name, pair in sizes.items():
        assert_near(_vector(torch.empty(1, 0), pair), recorded[name], TOLERANCE, name)


def test_vector_is_pooled_then_sizes(fixtures: ReferenceFixtures) -> None:
    recorded = fixtures.tensors("conditioning")
    found = _vector(recorded["stub_pooled"], [1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0])
    assert_near(found, recorded["out.vector"], TOLERANCE, "vector")


def test_tokens_are_clip_l_then_big_g(fixtures: ReferenceFixtures) -> None:
    """Towers that answer the recorded features; tokenizers that answer nothing but padding."""
    recorded = fixtures.tensors("conditioning")

    def tower(features: Tensor, **pooled: Tensor) -> Any:
        output = SimpleNamespace(hidden_states=[features, torch.empty(0)], **pooled)
        encoder: Any = SimpleNamespace(device="cpu")
        return type("Tower", (), {"device": encoder.device, "__call__": lambda self, ids, **options: output})()

    def tokenizer(text: str, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[])

    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(tokenizer, name, 0)
    towers = TextTowers(
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        text_encoder=tower(recorded["stub_l"]),
        text_encoder_2=tower(recorded["stub_g"], text_embeds=recorded["stub_pooled"]),
    )
    embedding = towers.encode([""] * len(recorded["stub_l"]))
    assert_near(embedding.tokens, recorded["out.crossattn"], TOLERANCE, "tokens")
    assert_near(embedding.pooled, recorded["stub_pooled"], TOLERANCE, "pooled")
