"""SDXL's text conditioning: two towers, their next-to-last hidden layers, the pooled vector (reference section 4)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supir.prompts import Part, clean_text, plain_parts, weighted_parts

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
    def encode(self, prompts: Sequence[str], *, long_prompt: str = "chunks", weighted: bool = False) -> TextEmbedding:
        """Embed prompts together, so that all have the same number of tokens.

        A prompt of more than 75 tokens is carried in several chunks of 77 (``chunks``), the pooled vector being that of
        the first; or it is cut as the public code does (``truncate``), with a ``PromptTruncatedWarning``.

        With ``weighted``, ``(word:1.2)`` and BREAK are read as ``weighted_parts`` says: BREAK begins another chunk, and
        a token's embedding goes so much of the way, or beyond it, from that of an empty prompt at its place, as ComfyUI
        does; the pooled vector hears no weights.
        """
        read = weighted_parts if weighted else plain_parts
        parts = [read(prompt) for prompt in prompts]
        tokens, pooled = [], torch.empty(0)
        for tokenizer, encoder in ((self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2)):
            warn = encoder is self.text_encoder  # both tokenizers cut at the same place: say so once
            ids, weights = _ids_of_parts(tokenizer, parts, long_prompt=long_prompt, warn=warn)
            place = self.device or encoder.device
            batch, chunks, _ = ids.shape
            output = encoder(ids.flatten(0, 1).to(place), output_hidden_states=True)
            hidden = output.hidden_states[-2]
            if bool((weights != 1).any()):
                nothing, _ = _ids_of_parts(tokenizer, [plain_parts("")], long_prompt=long_prompt)
                empty = encoder(nothing[0].to(place), output_hidden_states=True).hidden_states[-2]
                hidden = torch.lerp(empty.expand_as(hidden), hidden, weights.flatten(0, 1)[..., None].to(hidden))
            tokens.append(hidden.reshape(batch, chunks * NUM_TOKENS, -1))
            if hasattr(output, "text_embeds"):
                pooled = output.text_embeds.reshape(batch, chunks, -1)[:, 0]
        return TextEmbedding(tokens=torch.cat(tokens, dim=-1), pooled=pooled)


def token_ids(tokenizer: Any, prompts: Sequence[str], *, long_prompt: str, warn: bool = True) -> Tensor:
    """Token ids (B, chunks, 77): begin token, up to 75 of the prompt, end token, padding of that tokenizer."""
    return _ids_of_parts(tokenizer, [plain_parts(prompt) for prompt in prompts], long_prompt=long_prompt, warn=warn)[0]


def _ids_of_parts(
    tokenizer: Any, prompts: Sequence[Sequence[Part]], *, long_prompt: str, warn: bool = True
) -> tuple[Tensor, Tensor]:
    """(ids, weights), both (B, chunks, 77), of prompts in parts, each of which begins a chunk where there are several
    chunks.
    """
    if long_prompt not in ("chunks", "truncate"):
        raise ValueError(f"long_prompt is {long_prompt!r}; it must be 'chunks' or 'truncate'")
    words = [[_tokens(tokenizer, part) for part in parts] for parts in prompts]
    if long_prompt == "truncate":
        whole = [[token for part in parts for token in part] for parts in words]
        for dropped in [tokens[CHUNK_CAPACITY:] for tokens in whole if warn and len(tokens) > CHUNK_CAPACITY]:
            shown = tokenizer.decode([number for number, _ in dropped])
            warnings.warn(
                f"The prompt is {len(dropped)} tokens too long; dropped: {shown!r}. "
                "Shorten it, or set long_prompt to 'chunks'.",
                PromptTruncatedWarning,
                stacklevel=3,
            )
        words = [[tokens[:CHUNK_CAPACITY]] for tokens in whole]
    chunked = [[chunk for part in parts for chunk in _chunks(part)] for parts in words]
    num_chunks = max(map(len, chunked))
    rows = []
    for chunks in chunked:
        padded = [*chunks, *[[] for _ in range(num_chunks - len(chunks))]]
        framed = [[(tokenizer.bos_token_id, 1.0), *chunk, (tokenizer.eos_token_id, 1.0)] for chunk in padded]
        rows.append([chunk + [(tokenizer.pad_token_id, 1.0)] * (NUM_TOKENS - len(chunk)) for chunk in framed])
    ids, weights = torch.tensor(rows, dtype=torch.float64).unbind(-1)
    return ids.long(), weights.float()


def _tokens(tokenizer: Any, part: Part) -> list[tuple[int, float]]:
    """The tokens of a part with their weights."""
    found = []
    for words, weight in part:
        text = clean_text(words)
        ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
        found += [(number, weight) for number in ids]
    return found


def _chunks(tokens: list[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """At least one."""
    starts = range(0, max(len(tokens), 1), CHUNK_CAPACITY)
    return [tokens[start : start + CHUNK_CAPACITY] for start in starts]
