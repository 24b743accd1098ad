"""The words that steer quality, and how they join a caption (paper section 3.2 and A.2, reference section 13)."""

from __future__ import annotations

import html
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


def clean_text(text: str) -> str:
    """Words as the public tokenizers read them before they split: the recorded ids are those of such words.

    Both towers were trained on them. ``ftfy`` makes typographic quotes and apostrophes plain, takes ligatures and wide
    letters apart, joins accents to their letters, and mends what was decoded wrongly; then HTML entities are resolved,
    twice, and white space is folded.
    """
    import ftfy  # here, since it takes longer to import than all options to be read

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
