"""Letters: what is written in the input and in the result, by rapidocr, and what changed.

Its weights lie in its wheel; nothing is fetched. The input is enlarged to the result's size first, without inventing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from supir.audit.boxes import SAME_PLACE, overlap
from supir.errors import MissingExtraError
from supir.image.sizes import Box
from supir.options.packages import LETTERS, lacking

READABLE = 0.8
"""Confidence of the reader, 0 to 1, from which on a text counts as read."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A line that was read."""

    words: str
    confidence: float
    """0 to 1."""
    box: Box
    """Left, top, width, height, in pixels of the result."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One place with letters, before and after."""

    box: Box
    before: Text | None
    after: Text | None

    @property
    def verdict(self) -> str:
        """kept; changed: another text; invented: unreadable before and readable after; lost; or unreadable."""
        readable = [text is not None and text.confidence >= READABLE for text in (self.before, self.after)]
        if all(readable) and self.before and self.after:
            return "kept" if _plain(self.before.words) == _plain(self.after.words) else "changed"
        return {(False, True): "invented", (True, False): "lost"}.get((readable[0], readable[1]), "unreadable")

    @property
    def num_changed(self) -> int:
        """Words of the result here that are not those of the input."""
        if self.after is None or self.verdict not in ("changed", "invented"):
            return 0
        known = (
            {_plain(word) for word in self.before.words.split()} if self.before and self.verdict == "changed" else ()
        )
        return max(1, sum(_plain(word) not in known for word in self.after.words.split()))

    def as_json(self) -> dict[str, Any]:
        """As reports have it."""
        told = {
            name: None if text is None else {"text": text.words, "confidence": round(text.confidence, 3)}
            for name, text in (("before", self.before), ("after", self.after))
        }
        return {"box": list(self.box), "verdict": self.verdict, "words_changed": self.num_changed, **told}


def _plain(words: str) -> str:
    return "".join(words.split()).casefold()


def read_letters(before: Tensor, after: Tensor) -> list[Reading]:
    """Of the input, enlarged to the result's size, and the result, both (3, H, W) in grey levels.

    Raises:
        MissingExtraError: rapidocr is not installed.
    """
    return paired(_read(before), _read(after))


def check_reader() -> None:
    """See that letters can be read, without reading any.

    Raises:
        MissingExtraError: rapidocr is not installed.
    """
    if lacking(LETTERS) is not None:
        raise _lacking()


def paired(before: Sequence[Text], after: Sequence[Text]) -> list[Reading]:
    """The places of the two, each with what overlaps it most in the other."""
    left, found = list(before), []
    for text in after:
        best = max(left, key=lambda other: overlap(text.box, other.box), default=None)
        if best is not None and overlap(text.box, best.box) >= SAME_PLACE:
            left.remove(best)
        else:
            best = None
        found.append(Reading(box=text.box, before=best, after=text))
    return found + [Reading(box=text.box, before=text, after=None) for text in left]


def _read(picture: Tensor) -> list[Text]:
    pixels = picture.round().clamp(0, 255).byte().flip(0).permute(1, 2, 0).contiguous().numpy()  # BGR, as it reads
    found = _reader()(pixels)
    if found.txts is None:
        return []
    texts = []
    for words, confidence, corners in zip(found.txts, found.scores, found.boxes, strict=True):
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        box = int(left), int(top), int(right - left), int(bottom - top)
        texts.append(Text(words=str(words), confidence=float(confidence), box=box))
    return texts


@cache
def _reader() -> Any:
    """The reader, with the weights of its wheel."""
    try:
        import onnxruntime
        from rapidocr import RapidOCR
    except ImportError as error:
        raise _lacking() from error
    onnxruntime.set_default_logger_severity(3)
    return RapidOCR(params={"Global.log_level": "error", "Global.text_score": 0.0})


def _lacking() -> MissingExtraError:
    return MissingExtraError("rapidocr", "audit", "reading letters")
