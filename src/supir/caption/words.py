"""A caption, and what is taken out of one before anything uses it: whoever wrote it is not trusted.

Of a model's answer the thoughts are no words for a prompt, and neither is a refusal.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Self

from supir.errors import CaptionError
from supir.prompts import clean_text

QUESTION = "Describe this photograph in one or two sentences: the subject, the materials and textures, and the setting."
"""What a chat model is asked. Another question means other captions: it is part of a captioner's name."""

OF_THE_PAPER = {
    "caption_question": "Describe this image and its style in a very detailed manner.",
    "caption_tokens": 512,
    "caption_temperature": 0.2,
}
"""What the paper asks of LLaVA, and how (A.2; reference section 12)."""
TOP_P = 0.7
"""Where words are drawn: from the likeliest of them that are so probable together (reference section 12)."""

MAX_LENGTH = 1000
"""Characters of a caption; what is longer is cut after a word."""

MAX_SIDE = 1024
"""Pixels of the longer side that a captioner is shown at most: models look at less, and endpoints take money by it."""

WORDS = ("prompt", "words_from", "caption", "captioner")
"""What the record of a result says of its words; the caption is there where one was made."""

ESCAPE = "\x1b"
"""Begins the colours of a terminal, which go as a whole."""
_MAX_READ = 10_000  # characters that are looked at, whatever came

ROOM_TO_THINK = 4096
"""Tokens that a model is given when a caption's few ended while it was still thinking."""

_NAMES = r"think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad|seed:think"
_BEGIN = re.compile(rf"<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>", re.IGNORECASE)
_END = re.compile(rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>", re.IGNORECASE)
_CHANNEL, _FINAL = "<|channel|>", re.compile(r"<\|channel\|>\s*final[^<]*<\|message\|>")
_ANSWER = re.compile(
    r"<answer>(.*?)(?:</answer>|$)|<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|$)", re.IGNORECASE | re.DOTALL
)
_REFUSAL = re.compile(
    r"(?:(?:i'm|i am) (?:really |very |so |terribly )?sorry|sorry\b|(?:my )?apologies|i apologi[sz]e"
    r"|unfortunately,? i\b|as an ai\b|as a (?:large )?language model"
    r"|i (?:can't|cannot|can not|couldn't|could not|won't|will not|must decline)\b"
    r"|(?:i'm|i am) (?:unable|not able|not allowed|not permitted|not comfortable)\b"
    r"|i (?:don't|do not) (?:see|have) (?:an?y?|the) (?:image|photo|picture|access|ability|attach)"
    r"|please (?:provide|upload|share|attach) "
    r"|no (?:image|photo|picture) (?:was|is|has been) (?:provided|attached|given)"
    r"|lo siento|je suis désolé|es tut mir leid|mi dispiace|desculpe|抱歉|对不起|很抱歉|申し訳|죄송)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What a captioner said of a picture."""

    text: str
    """One clean line; empty when it said nothing."""
    captioner: str
    """Its name."""


class Closable:
    """What captioners share: a context manager, at whose end they give their memory back."""

    def close(self) -> None:
        """Give back what is held; it may be asked again all the same."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


def has_thoughts(answer: str) -> bool:
    """Whether a model has thought aloud in its answer."""
    return _CHANNEL in answer or any(pattern.search(answer) for pattern in (_BEGIN, _END))


def spoken(answer: str) -> str:
    """An answer without the thoughts in it; empty where it ended before they did."""
    if _CHANNEL in answer:
        finals = [*_FINAL.finditer(answer)]
        answer = answer[finals[-1].end() :].partition("<|")[0] if finals else ""
    ends = [*_END.finditer(answer)]
    if ends:  # some templates begin the thoughts themselves, so that their end alone is in the answer
        answer = answer[ends[-1].end() :]
    begins = _BEGIN.search(answer)
    if begins:
        answer = answer[: begins.start()]
    boxed = _ANSWER.search(answer)
    return (boxed[1] or boxed[2] or "") if boxed else answer


def caption_in(answer: str, who: str) -> str:
    """The caption of an answer, in one clean line; empty where it holds no words.

    Args:
        answer: a model's.
        who: has answered, for messages.

    Raises:
        CaptionError: it is a refusal.
    """
    text = clean_caption(spoken(answer))
    if _REFUSAL.match(text):
        raise CaptionError(f"{who}: the model refuses to describe the picture. It says: {text[:300]}")
    return text
