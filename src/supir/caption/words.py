"""A caption, and what is taken out of one before anything uses it: whoever wrote it is not trusted."""

from __future__ import annotations

import html
from dataclasses import dataclass

from supir.prompts import clean_text

QUESTION = "Describe this photograph in one or two sentences: the subject, the materials and textures, and the setting."
"""What a chat model is asked. Another question means other captions: it is part of a captioner's name."""

MAX_LENGTH = 1000
"""Characters of a caption; what is longer is cut after a word."""

MAX_SIDE = 1024
"""Pixels of the longer side that a captioner is shown at most: models look at less, and endpoints take money by it."""

WORDS = ("prompt", "words_from", "caption", "captioner")
"""What the record of a result says of its words; the caption is there where one was made."""

ESCAPE = "\x1b"
"""Begins the colours of a terminal, which go as a whole."""
_MAX_READ = 10_000  # characters that are looked at, whatever came


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What a captioner said of a picture."""

    text: str
    """One clean line; empty when it said nothing."""
    captioner: str
    """Its name."""


def clean_caption(text: str) -> str:
    """A caption as one line of printable words, at most `MAX_LENGTH` characters.

    Control characters and line breaks become spaces. What the text towers would make of the letters is made of them
    here, and angle brackets go: a tokenizer takes ``<|endoftext|>`` for the end of the prompt. So do signs at the
    beginning that make a spreadsheet take the words for a formula.
    """
    text = text[:_MAX_READ]
    while (plain := html.unescape(text)) != text:
        text = plain
    # Before the towers' rule, which drops control characters and so joins the words between which they stand.
    text = clean_text("".join(" " if letter < " " and letter != ESCAPE else letter for letter in text))
    kept = "".join(letter if letter.isprintable() and letter not in "<>" else " " for letter in text)
    line = " ".join(kept.split()).lstrip("=+-@ ")
    if len(line) <= MAX_LENGTH:
        return line
    return line[: MAX_LENGTH + 1].rsplit(" ", 1)[0][:MAX_LENGTH]


def record_of_words(prompt: str, caption: Caption | None) -> dict[str, str]:
    """Whose words the prompt holds, for the record of a result.

    ``words_from`` is ``captioner`` (as it said them), ``edited`` (a caption that somebody changed), ``typed`` or
    ``nobody``. With a caption, ``caption`` and ``captioner`` say what was made and by whom.
    """
    if caption is None or not caption.text:
        return {"words_from": "typed" if prompt else "nobody"}
    whose = "captioner" if prompt == caption.text else "edited"
    return {"words_from": whose, "caption": caption.text, "captioner": caption.captioner}
