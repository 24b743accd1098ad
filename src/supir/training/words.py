"""Prompts of the training samples: captions, quality words, and the negative words for negative-quality samples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supir.models.text import token_ids
from supir.prompts import NEGATIVE_PROMPT, POSITIVE_PROMPT, join_prompt


def training_prompt(rng: np.random.Generator, caption: str, dropout: float) -> str:
    """The prompt of a good picture in a named run: its caption, half of the time with the quality words; or nothing."""
    nothing, quality = rng.random() < dropout, rng.random() < 0.5
    if nothing:
        return ""
    return join_prompt(caption, POSITIVE_PROMPT) if quality or not caption else caption


KEPT_PROMPTS = 20_000
"""Prompts whose token ids are remembered, those asked for last; some 30 MB."""


class Words:
    """Embeds prompts with gradient, each distinct prompt once, the token ids of the last ones remembered."""

    def __init__(self, tokenizers: Sequence[Any], encoders: Sequence[Any]) -> None:
        self.towers = list(zip(tokenizers, encoders, strict=True))
        self._known = lru_cache(KEPT_PROMPTS)(self._ids)

    def _ids(self, prompt: str) -> list[Tensor]:
        return [
            token_ids(tokenizer, [prompt], long_prompt="truncate", warn=False)[0, 0] for tokenizer, _ in self.towers
        ]

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(tokens (B, 77, features), pooled (B, features)) as ``TextTowers.encode`` gives them."""
        distinct = sorted(set(prompts))
        back = torch.tensor([distinct.index(prompt) for prompt in prompts])
        hidden, pooled = [], torch.empty(0)
        for number, (_, encoder) in enumerate(self.towers):
            ids = torch.stack([self._known(prompt)[number] for prompt in distinct]).to(encoder.device)
            output = encoder(ids, output_hidden_states=True)
            hidden.append(output.hidden_states[-2])
            pooled = getattr(output, "text_embeds", pooled)
        return torch.cat(hidden, -1)[back], pooled[back]


__all__ = ["NEGATIVE_PROMPT", "Words", "training_prompt"]
