"""What a user may set of an audit, and the limits that a caller may set for its findings."""

from __future__ import annotations

from dataclasses import dataclass

from supir.errors import OptionError
from supir.options.fields import Options, choice, flag, number


@dataclass(frozen=True, kw_only=True)
class AuditOptions(Options):
    """How a result is audited, and what of it is too much."""

    called = "an option of an audit"

    level: float = number(
        0.1,
        0.01,
        0.5,
        "of what is wrong, at most this share is expected to be called kept, and of what is right, invented",
    )
    false_alarms: float = number(
        0.05, 0.01, 0.5, "share of untouched pictures in which something may be said to contradict the input"
    )
    seeds: int = number(1, 1, 16, "versions that the witness samples of the input, to see what moves", unit="versions")
    letters: bool = flag(True, "read the text before and after, where rapidocr is installed")
    max_invented: float | None = number(None, 0, 1, "largest share of the picture that may be invented; unset: any")
    max_contradictions: int | None = number(
        None, 0, 10_000, "how many places may contradict the input; unset: any", unit="places"
    )
    max_changed_words: int | None = number(
        None, 0, 10_000, "how many words may be changed or invented; unset: any", unit="words"
    )
    likeness: bool = flag(True, "compare the faces before and after, where dlib is installed")
    min_face_similarity: float | None = number(
        None, 0, 1, "how alike every face must be that is large enough to tell, 1 is the same picture; unset: any"
    )
    on_doubt: str = choice(
        "keep",
        ("keep", "blend", "preview"),
        "past a limit return: keep, the result all the same; blend, the clean preview where it is invented; preview,"
        " the clean preview alone",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_changed_words is not None and not self.letters:
            raise OptionError(
                f"max_changed_words is {self.max_changed_words}, and letters is False, so that no word is read; leave"
                " out one"
            )
        if self.min_face_similarity is not None and not self.likeness:
            raise OptionError(
                f"min_face_similarity is {self.min_face_similarity}, and likeness is False, so that no face is"
                " compared; leave out one"
            )


LIMITS = ("max_invented", "max_contradictions", "max_changed_words", "min_face_similarity")
"""Those of the fields that are limits."""
