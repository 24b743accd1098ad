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
