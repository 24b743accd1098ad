"""The bundled tokenizers give the recorded ids; CLIP-L's differ in their padding alone."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

import supir
from parity.reference_fixtures import ReferenceFixtures
from supir.models.text import PromptTruncatedWarning, token_ids

MODEL = Path(supir.__file__).parent / "assets" / "model"
END_TOKEN = 49407


@pytest.mark.parametrize(("folder", "padding"), [("tokenizer", END_TOKEN), ("tokenizer_2", 0)])
def test_ids(fixtures: ReferenceFixtures, folder: str, padding: int) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / folder)
    for case in fixtures.json("token_ids")["cases"]:
        expected = case["ids"]
        end = expected.index(END_TOKEN)
        expected = expected[: end + 1] + [padding] * (len(expected) - end - 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PromptTruncatedWarning)
            [[found]] = token_ids(tokenizer, [case["text"]], long_prompt="truncate").tolist()
        assert found == expected, case["text"]


@pytest.mark.parametrize("folder", ["tokenizer", "tokenizer_2"])
@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("Two dogs don\u2019t run", "Two dogs don't run"),
        ("the \u201cred\u201d \u2018door\u2019", "the \"red\" 'door'"),
        ("an of\ufb01ce, \uff21 wide", "an office, A wide"),
        ("cafe\u0301 and caf\u00c3\u00a9", "caf\u00e9 and caf\u00e9"),
        ("R&amp;amp;D don&rsquo;t &lt;b&gt;", "R&D don't <b>"),
        ("a\u2028b\u00a0\u3000c", "a b c"),
    ],
)
def test_letters_are_read_as_the_public_tokenizers_read_them(folder: str, typed: str, plain: str) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / folder)
    found, expected = (token_ids(tokenizer, [text], long_prompt="chunks").tolist() for text in (typed, plain))
    assert found == expected


def test_a_typographic_apostrophe_is_one() -> None:
    """Captioners write it; 713 is what CLIP reads for the end of "don't"."""
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    [[found]] = token_ids(tokenizer, ["Two dogs don\u2019t run"], long_prompt="truncate").tolist()
    assert found[:7] == [49406, 1237, 3255, 847, 713, 1934, END_TOKEN]
