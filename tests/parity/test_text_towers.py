"""Both text towers from original keys: fused projections split, the projection matrix turned, hidden layers chosen."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from loading import load_components
from parity.reference_fixtures import ReferenceFixtures, check_sums
from parity.tolerances import assert_near
from supir.models.text import TextTowers
from supir.weights.layout import HeadDims

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def towers(fixtures: ReferenceFixtures) -> dict[str, Any]:
    description = fixtures.json("text_towers")
    recorded = description["weights"]
    weights = fixtures.recipe({key: shape for key, (shape, _) in recorded.items()}, description["weight_seed"])
    check_sums(weights, recorded)
    first, second = description["clip_l"], description["openclip_g"]
    head_dims = HeadDims(
        text_encoder=first["width"] // first["heads"], text_encoder_2=second["width"] // second["heads"]
    )
    models, report = load_components(weights, components=("text_encoder", "text_encoder_2"), head_dims=head_dims)
    assert report.ok
    return models


@torch.no_grad()
def test_hidden_layers_and_pooling(fixtures: ReferenceFixtures, towers: dict[str, Any]) -> None:
    recorded = fixtures.tensors("text_towers")
    first = towers["text_encoder"](recorded["l.tokens"], output_hidden_states=True)
    second = towers["text_encoder_2"](recorded["g.tokens"], output_hidden_states=True)
    assert_near(first.hidden_states[-2], recorded["l.out_hidden_penultimate"], TOLERANCE, "CLIP-L, next to last")
    assert_near(first.last_hidden_state, recorded["l.last_hidden_state"], TOLERANCE, "CLIP-L, last")
    assert_near(second.hidden_states[-2], recorded["g.out_penultimate"], TOLERANCE, "bigG, next to last")
    assert_near(second.hidden_states[-1], recorded["g.last"], TOLERANCE, "bigG, last, not normalised")
    assert_near(second.text_embeds, recorded["g.pooled"], TOLERANCE, "bigG, pooled")


@dataclass
class RecordedTokenizer:
    """Recorded ids for the texts "0", "1", ...: what a tokenizer is to `TextTowers`."""

    ids: Tensor
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int

    def __call__(self, text: str, **options: Any) -> SimpleNamespace:
        row = self.ids[int(text)].tolist()
        return SimpleNamespace(input_ids=row[1 : row.index(self.eos_token_id)])


def test_both_towers_make_one_conditioning(fixtures: ReferenceFixtures, towers: dict[str, Any]) -> None:
    description, recorded = fixtures.json("text_towers"), fixtures.tensors("text_towers")
    first, second = description["clip_l"], description["openclip_g"]
    joined = TextTowers(
        tokenizer=RecordedTokenizer(recorded["l.tokens"], first["bos_id"], first["eot_id"], first["eot_id"]),
        tokenizer_2=RecordedTokenizer(recorded["g.tokens"], second["bos_id"], second["eot_id"], 0),
        text_encoder=towers["text_encoder"],
        text_encoder_2=towers["text_encoder_2"],
    )
    embedding = joined.encode([str(index) for index in range(len(recorded["l.tokens"]))])
    expected = torch.cat([recorded["l.out_hidden_penultimate"], recorded["g.out_penultimate"]], dim=-1)
    assert_near(embedding.tokens, expected, TOLERANCE, "tokens")
    assert_near(embedding.pooled, recorded["g.pooled"], TOLERANCE, "pooled")
