"""Captions are untrusted text."""

from __future__ import annotations

import time

import pytest

from supir.caption import Caption, clean_caption
from supir.caption.words import MAX_LENGTH, record_of_words
from supir.models.text import token_ids
from supir.prompts import clean_text
from tiny import tiny_tokenizer


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("A red door.", "A red door."),
        (" two\r\nlines\tand\x00a\x1b[31m bell\x07 ", "two lines and a bell"),
        ("left\u202eright\u200b\ufeff", "left right"),
        ('=HYPERLINK("x") ', 'HYPERLINK("x")'),
        ("-2+3", "2+3"),
        ("AT&T and R&amp;D &amp;amp;lt;b&gt;", "AT&T and R&D b"),
        ("(a red door:1.5) [x] BREAK", "(a red door:1.5) [x] BREAK"),
        ("Two dogs don\u2019t run: \u201cno\u201d.", 'Two dogs don\'t run: "no".'),
        ("", ""),
    ],
)
def test_one_clean_line(text: str, clean: str) -> None:
    assert clean_caption(text) == clean
    assert clean_caption(clean) == clean


@pytest.mark.parametrize(
    "text", ["a<|endoftext|>b", "a&lt;|endoftext|&gt;b", "a&amp;amp;lt;|endoftext|>b", "a\uff1c|endoftext|\uff1eb"]
)
def test_no_caption_ends_the_prompt(text: str) -> None:
    tokenizer = tiny_tokenizer()
    end = tokenizer.eos_token_id
    [[raw]] = token_ids(tokenizer, ["a<|endoftext|>b"], long_prompt="truncate").tolist()
    assert raw.index(end) == 2, "the tokenizer takes it for the end"
    caption = clean_caption(text)
    assert clean_text(caption) == caption
    [[ids]] = token_ids(tokenizer, [caption], long_prompt="truncate").tolist()
    assert ids.index(end) > 10


def test_long_captions_are_cut_after_a_word_and_quickly() -> None:
    cut = clean_caption("word " * 3000)
    assert len(cut) <= MAX_LENGTH
    assert cut.endswith("word")
    assert len(clean_caption("x" * 5000)) == MAX_LENGTH
    start = time.process_time()
    clean_caption("&" + "amp;" * 10**6)
    assert time.process_time() - start < 10


def test_whose_words_they_are() -> None:
    made = Caption(text="a door", captioner="llava")
    assert record_of_words("", None) == {"words_from": "nobody"}
    assert record_of_words("a tree", None) == {"words_from": "typed"}
    assert record_of_words("a door", made) == {"words_from": "captioner", "caption": "a door", "captioner": "llava"}
    assert record_of_words("a red door", made)["words_from"] == "edited"
    assert record_of_words("", Caption(text="", captioner="beside")) == {"words_from": "nobody"}
