"""Words for the networks: a caption with its quality words, and the negative prompt, embedded once a restoration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supir.models.text import TextTowers
from supir.models.unet import condition_vector
from supir.options import RestoreOptions
from supir.prompts import whole_prompts

__all__ = ["SIZE_IDS", "Conditions", "embed"]

SIZE_IDS = (1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0)
"""Original size, crop and target size told to SDXL, whatever the picture's (reference section 4)."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the words say to the networks: text tokens (B, tokens, features) and condition vectors (B, features).

    Lists hold one for each tile, row by row.
    """

    tokens: Tensor | list[Tensor]
    vector: Tensor | list[Tensor]
    negative_tokens: Tensor
    negative_vector: Tensor

    def to(self, device: torch.device) -> Conditions:
        """The same on a device."""
        moved: dict[str, Any] = {
            name: value.to(device) if isinstance(value, Tensor) else [each.to(device) for each in value]
            for name, value in vars(self).items()
        }
        return Conditions(**moved)


def embed(towers: TextTowers, options: RestoreOptions, batch: int, size_width: int) -> Conditions:
    """Embed the prompt, or one a tile, with its quality words, and the negative prompt; once for the whole batch.

    Args:
        towers: read the words.
        options: hold them.
        batch: samples that are given the same.
        size_width: features that each of ``SIZE_IDS`` becomes.
    """
    positive, negative = whole_prompts(options)
    text = towers.encode([*positive, negative], long_prompt=options.long_prompt)
    sizes = torch.tensor([SIZE_IDS] * len(text.pooled), device=text.pooled.device)
    vector = condition_vector({"text_embeds": text.pooled, "time_ids": sizes}, size_width)
    tokens = [each.expand(batch, -1, -1) for each in text.tokens[:, None]]
    vectors = [each.expand(batch, -1) for each in vector[:, None]]
    return Conditions(
        tokens=tokens[:-1] if options.tile_prompts else tokens[0],
        vector=vectors[:-1] if options.tile_prompts else vectors[0],
        negative_tokens=tokens[-1],
        negative_vector=vectors[-1],
    )
