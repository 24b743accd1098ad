"""Weights and BREAK of prompts in the text towers."""

from __future__ import annotations

import pytest
import torch

from supir.models.text import NUM_TOKENS, TextTowers
from tiny import tiny_components


@pytest.fixture(scope="module")
def towers() -> TextTowers:
    names = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
    return TextTowers(**{name: tiny_components()[name] for name in names})


def test_a_weight_moves_its_own_words_from_the_empty_prompt(towers: TextTowers) -> None:
    plain, empty = towers.encode(["a bc d"]), towers.encode([""])
    words = slice(2, 4)  # a letter is a token of the tiny tokenizer, and the first begins
    for weight in (0.0, 0.5, 1.0, 1.5):
        found = towers.encode([f"a (bc:{weight}) d"], weighted=True)
        expected = plain.tokens.clone()
        expected[:, words] = torch.lerp(empty.tokens[:, words], plain.tokens[:, words], weight)
        torch.testing.assert_close(found.tokens, expected)
        torch.testing.assert_close(found.pooled, plain.pooled)


def test_break_begins_another_chunk(towers: TextTowers) -> None:
    found = towers.encode(["a b BREAK c", "d"], weighted=True)
    assert found.tokens.shape[1] == 2 * NUM_TOKENS
    for half, text in ((slice(0, NUM_TOKENS), "a b"), (slice(NUM_TOKENS, None), "c")):
        torch.testing.assert_close(found.tokens[:1, half], towers.encode([text]).tokens)
    cut = towers.encode(["a b BREAK c"], weighted=True, long_prompt="truncate")
    torch.testing.assert_close(cut.tokens, towers.encode(["a b c"]).tokens)


def test_without_weights_the_signs_are_letters(towers: TextTowers) -> None:
    as_it_is = towers.encode(["(a:2) BREAK"])
    assert as_it_is.tokens.shape[1] == NUM_TOKENS
    assert not torch.allclose(as_it_is.tokens, towers.encode(["a"]).tokens)
