"""SDXL's text conditioning: two towers, their next-to-last hidden layers, the pooled vector (reference section 4)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supir.prompts import clean_text

NUM_TOKENS = 77
CHUNK_CAPACITY = NUM_TOKENS - 2  # between the begin and the end token


class PromptTruncatedWarning(UserWarning):
    """A prompt was longer than the text towers read; the message quotes what was dropped."""


@dataclass(frozen=True, kw_only=True)
class TextEmbedding:
    """What the UNet reads of some prompts: ``tokens`` (B, 77 x chunks, features) and ``pooled`` (B, features)."""

    tokens: Tensor
    pooled: Tensor

    def __getitem__(self, samples: slice) -> TextEmbedding:
        return TextEmbedding(tokens=self.tokens[samples], pooled=self.pooled[samples])


@dataclass(frozen=True, kw_only=True)
class TextTowers:
    """CLIP ViT-L/14 and OpenCLIP bigG-14, or smaller ones of the same classes, with their tokenizers.

    ``device`` is where they run, which weights that come and go cannot tell; None is where the weights are.
    """

    tokenizer: Any
    tokenizer_2: Any
    text_encoder: Any
    text_encoder_2: Any
    device: torch.device | None = None

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], *, long_prompt: str = "chunks") -> TextEmbedding:
        """Embed prompts together, so that all have the same number of tokens.

        A prompt of more than 75 tokens is carried in several chunks of 77 (``chunks``), the pooled vector being that of
        the first; or it is cut as the public code does (``truncate``), with a ``PromptTruncatedWarning``.
        """
        tokens, pooled = [], torch.empty(0)
        for tokenizer, encoder in ((self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2)):
            warn = encoder is self.text_encoder  # both tokenizers cut at the same place: say so once
            ids = token_ids(tokenizer, prompts, long_prompt=long_prompt, warn=warn).to(self.device or encoder.device)
            batch, chunks, _ = ids.shape
            output = encoder(ids.flatten(0, 1), output_hidden_states=True)
            tokens.append(output.hidden_states[-2].reshape(batch, chunks * NUM_TOKENS, -1))
            if hasattr(output, "text_embeds"):
                pooled = output.text_embeds.reshape(batch, chunks, -1)[:, 0]
        return TextEmbedding(tokens=torch.cat(tokens, dim=-1), pooled=pooled)


def token_ids(tokenizer: Any, prompts: Sequence[str], *, long_prompt: str, warn: bool = True) -> Tensor:
    """Token ids (B, chunks, 77): begin token, up to 75 of the prompt, end token, padding of that tokenizer."""
    if long_prompt not in ("chunks", "truncate"):
        raise ValueError(f"long_prompt is {long_prompt!r}; it must be 'chunks' or 'truncate'")
    texts = [clean_text(prompt) for prompt in prompts]
    words = [tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids for text in texts]
    if long_prompt == "truncate":
        for dropped in [ids[CHUNK_CAPACITY:] for ids in words if warn and len(ids) > CHUNK_CAPACITY]:
            warnings.warn(
                f"The prompt is {len(dropped)} tokens too long; dropped: {tokenizer.decode(dropped)!r}. "
                "Shorten it, or set long_prompt to 'chunks'.",
                PromptTruncatedWarning,
                stacklevel=3,
            )
        words = [ids[:CHUNK_CAPACITY] for ids in words]
    num_chunks = max(1, *(-(-len(ids) // CHUNK_CAPACITY) for ids in words))
    rows = []
    for ids in words:
        chunks = [
            ids[start : start + CHUNK_CAPACITY] for start in range(0, num_chunks * CHUNK_CAPACITY, CHUNK_CAPACITY)
        ]
        framed = [[tokenizer.bos_token_id, *chunk, tokenizer.eos_token_id] for chunk in chunks]
        rows.append([chunk + [tokenizer.pad_token_id] * (NUM_TOKENS - len(chunk)) for chunk in framed])
    return torch.tensor(rows)
