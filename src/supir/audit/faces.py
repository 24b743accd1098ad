"""Faces: whether the person in the result is the one in the input.

The result is damaged again as the photo was, and what then is left of each face is held, by an embedding
(``supir.image.faces``), against the photo itself and against the witness's clean preview of it, in which there is no
noise; the more alike of the two counts. So an embedding is not asked to tell a blurred face from a crisp one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from supir.audit.boxes import SAME_PLACE, overlap
from supir.audit.damage import damaged_again
from supir.audit.evidence import Evidence
from supir.image import resize
from supir.image.faces import Face, embeddings, find_faces
from supir.image.sizes import Box

SAME, DOUBTFUL, ANOTHER, TOO_SMALL = "same", "doubtful", "another", "too small to tell"


@dataclass(frozen=True)
class Usual:
    """What is usual of faces of a size, measured by ``bench/faces.py``."""

    pixels: float
    """Width of the face in the input, from which on this holds."""
    same: float
    """Similarity that nineteen of twenty untouched faces reach."""
    another: float
    """Similarity below which none of them was, and by some margin."""


USUAL = (Usual(8, 0.77, 0.66), Usual(20, 0.73, 0.57))
"""From the smallest on."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """A face, before and after."""

    box: Box
    """In pixels of the result."""
    pixels: int
    """Its width in the input."""
    found: tuple[bool, bool]
    """Whether it was found before, in the clean preview of the input, and after."""
    similarity: float
    """1 less the distance of the embeddings: 1 is the same picture; photographs of two people are mostly below 0.4."""

    @property
    def usual(self) -> Usual | None:
        """Of faces of this size; None where they are too small to tell anything."""
        return next((each for each in reversed(USUAL) if self.pixels >= each.pixels), None)

    @property
    def verdict(self) -> str:
        """same; doubtful; another: less alike than restoring made any face of this size; or too small to tell."""
        if self.usual is None:
            return TOO_SMALL
        if self.similarity >= self.usual.same:
            return SAME
        return DOUBTFUL if self.similarity >= self.usual.another else ANOTHER

    def as_json(self) -> dict[str, Any]:
        """As reports have it."""
        return {
            "box": list(self.box),
            "pixels": self.pixels,
            "found": {"before": self.found[0], "after": self.found[1]},
            "similarity": round(self.similarity, 3),
            "usual_from": None if self.usual is None else self.usual.same,
            "verdict": self.verdict,
        }


def compare_faces(evidence: Evidence) -> list[Likeness]:
    """Every face that is found before or after, surest first.

    Raises:
        MissingExtraError: as ``supir.image.faces.check_faces``.
    """
    seen = _Seen.of(evidence)
    earlier, later = find_faces(seen.preview), find_faces(seen.after)
    found = [seen.likeness(face, (_is_among(face, earlier), True)) for face in later]
    return found + [seen.likeness(face, (True, False)) for face in earlier if not _is_among(face, later)]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What faces are looked for in and compared in, (3, H, W) in [-1, 1] at the size of the result."""

    after: Tensor
    again: Tensor
    """The result, damaged again as the photo was."""
    before: Tensor
    preview: Tensor
    """The witness's clean one of the photo."""
    scale: float
    """Pixels of the result over those of the input."""

    @staticmethod
    def of(evidence: Evidence) -> _Seen:
        size = evidence.after.shape[-2:]
        again = damaged_again(evidence.after, evidence.damage.blur, *evidence.size)
        after, again, before, preview = (
            resize(plane.contiguous(), *size, limits=(0.0, 255.0)) / 127.5 - 1
            for plane in (evidence.after, again, evidence.before, evidence.weak)
        )
        scale = size[1] / evidence.size[1]
        return _Seen(after=after, again=again, before=before, preview=preview, scale=scale)

    def likeness(self, face: Face, found: tuple[bool, bool]) -> Likeness:
        """Of a face that was found before, or after, or both; its landmarks are taken where it was found."""
        shown = self.after if found[1] else self.preview
        _, again, *earlier = embeddings([shown, self.again, self.before, self.preview], face.box)
        distance = min(float((again - each).norm()) for each in earlier)
        pixels = round(face.box[2] / self.scale)
        return Likeness(box=face.box, pixels=pixels, found=found, similarity=max(0.0, 1 - distance))


def _is_among(face: Face, others: list[Face]) -> bool:
    return any(overlap(face.box, other.box) >= SAME_PLACE for other in others)
