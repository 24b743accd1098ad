"""The words that steer quality, and how they join a caption (paper section 3.2 and A.2, reference section 13)."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supir.options import RestoreOptions

POSITIVE_PROMPT = (
    "Cinematic, High Contrast, highly detailed, taken using a Canon EOS R camera, hyper detailed photo - realistic"
    " maximum detail, 32k, Color Grading, ultra HD, extreme meticulous detailing, skin pore detailing, hyper sharpness,"
    " perfect without deformations."
)
"""Appended to the caption of every picture: 55 of the 77 tokens that one text chunk holds."""

NEGATIVE_PROMPT = (
    "painting, oil painting, illustration, drawing, art, sketch, oil painting, cartoon, CG Style, 3D render,"
    " unreal engine, blurring, dirty, messy, worst quality, low quality, frames, watermark, signature, jpeg artifacts,"
    " deformed, lowres, over-smooth"
)
"""Names what the result must not be; of use where training has seen negative-quality samples."""


def join_prompt(caption: str, positive_prompt: str, *, separator: str = " ") -> str:
    """The caption followed by the quality words; the public code joins them with no separator."""
    return separator.join(part for part in (caption.strip(), positive_prompt.strip()) if part)


def split_prompts(text: str) -> list[str]:
    """The prompts of ``tile_prompts``; none where the text is empty."""
    return [each.strip() for each in text.split("|")] if text else []


def whole_prompts(options: RestoreOptions) -> tuple[list[str], str]:
    """What the text towers read: the prompt of each tile, or the one of all, with its quality words; the negative."""
    words = POSITIVE_PROMPT if options.positive_prompt is None else options.positive_prompt
    negative = NEGATIVE_PROMPT if options.negative_prompt is None else options.negative_prompt
    separator = "" if options.reference_quirks else " "
    prompts = split_prompts(options.tile_prompts) or [options.prompt]
    return [join_prompt(prompt, words, separator=separator) for prompt in prompts], negative


Part = tuple[tuple[str, float], ...]
"""Words with their weights, one after the other."""
_SIGNS = re.compile(r"\\[()]|\(|(?<!\d):\s*(\d*\.?\d+)\s*\)|\)|\bBREAK\b")
MOST_WEIGHT = 10.0


def weighted_parts(text: str) -> tuple[Part, ...]:
    """A prompt as A1111 and ComfyUI read it: parts divided by BREAK, in each the words with their weights.

    ``(word:1.2)`` weighs what is between the parenthesis and the colon, also several words and such in one another,
    whose weights are multiplied; ``\\(`` is a parenthesis. Unlike there, parentheses without a number are letters, as
    captions have them, and so is a number behind a digit (``12:30``) or beyond ``MOST_WEIGHT``.
    """
    parts: list[list[tuple[str, float]]] = [[]]
    opened: list[int] = []
    last = 0
    for sign in _SIGNS.finditer(text):
        here, found = parts[-1], sign[0]
        here.append((text[last : sign.start()], 1.0))
        last = sign.end()
        if found == "BREAK":
            parts.append([])
            opened.clear()
        elif found == "(":
            opened.append(len(here))
            here.append((found, 1.0))
        elif sign[1] is not None and opened and float(sign[1]) <= MOST_WEIGHT:
            start = opened.pop()
            here[start:] = [(words, weight * float(sign[1])) for words, weight in here[start + 1 :]]
        else:
            if found.endswith(")") and not found.startswith("\\") and opened:
                opened.pop()
            here.append((found.removeprefix("\\"), 1.0))
    parts[-1].append((text[last:], 1.0))
    return tuple(_joined(part) for part in parts)


def plain_parts(text: str) -> tuple[Part, ...]:
    """A prompt whose letters are letters, in the same form."""
    return (((text, 1.0),),) if text else ((),)


def holds_weights(options: RestoreOptions) -> bool:
    """Whether a prompt of the options says ``(word:1.2)`` or BREAK."""
    positive, negative = whole_prompts(options)
    return any(weighted_parts(text) != plain_parts(text) for text in (*positive, negative, options.region))


def _joined(part: list[tuple[str, float]]) -> Part:
    """Neighbours of one weight put together, so that words are split where weights change alone."""
    found: list[tuple[str, float]] = []
    for words, weight in part:
        if found and found[-1][1] == weight:
            found[-1] = found[-1][0] + words, weight
        elif words:
            found.append((words, weight))
    return tuple(found)


def clean_text(text: str) -> str:
    """Words as the public tokenizers read them before they split: the recorded ids are those of such words.

    Both towers were trained on them. ``ftfy`` makes typographic quotes and apostrophes plain, takes ligatures and wide
    letters apart, joins accents to their letters, and mends what was decoded wrongly; then HTML entities are resolved,
    twice, and white space is folded.
    """
    import ftfy  # here, since it takes longer to import than all options to be read

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
