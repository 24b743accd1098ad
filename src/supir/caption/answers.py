"""What an answer says of a picture: a model's thoughts are no words for a prompt, and neither is a refusal."""

from __future__ import annotations

import re

from supir.caption.words import clean_caption
from supir.errors import CaptionError

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
