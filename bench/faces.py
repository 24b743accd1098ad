"""How well an audit tells faces: what is usual of the same face, by its size, and whether another's is found.

    pip install 'supir[faces]'
    python bench/faces.py PHOTO... --work FOLDER [--draws 7]

PHOTO... are good photographs with faces seen from the front. Each face is cut out at one size, made bad by recipes, and
restored by the bundled model; then another person's face is put in its place, by the landmarks. Printed are

1. the similarity of untouched faces and of another's by the width of the face in the input, as ``USUAL`` in
   ``supir.audit.faces`` has it;
2. how many of another's faces were found, and of untouched ones called another's, with the thresholds of now.

What makes the thresholds and what tests them should be photographs of different people. With ``--work`` the
restorations are kept and gone on with.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from supir.audit import open_witness
from supir.audit.calibrating import in_8_bits
from supir.audit.evidence import Evidence
from supir.audit.faces import ANOTHER, DOUBTFUL, USUAL, Likeness, compare_faces
from supir.audit.windows import gaussian, levels
from supir.degradation.pairs import degraded, drawn_for
from supir.files.report import markdown_table
from supir.image import Picture, find_pictures, read, resize
from supir.image.faces import Box, embeddings, find_faces, landmarks

RECIPES = ("everyday", "sr4", "sr8", "blur2_sr4", "sr4_noise40", "blur2_sr4_noise20_jpeg50", "default")
SIDE = 256
"""Pixels a side of what is cut out around a face."""
AROUND = 2.9
"""Widths of the face that are cut out."""
LEAST = 50
"""Pixels of the width of a face in its photograph."""
ONE_PERSON = 0.6
"""Distance of embeddings below which two photographs are taken for one person's."""
SIZES = (8.0, 20.0)
"""Widths of faces in the input, in pixels, from which on one row of the table holds."""
FEWEST = 20
"""Faces that a row is made of."""
MARGIN = 0.05
"""By so much less alike than the least alike untouched face another's is."""


Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Person:
    """A face that was cut out."""

    name: str
    truth: Tensor
    """(3, SIDE, SIDE) in [-1, 1]."""
    box: Box
    marks: npt.NDArray[np.float32]
    """(5, 2): the landmarks, in pixels."""
    embedding: Tensor


@dataclass(frozen=True, kw_only=True)
class Case:
    """A restored face, and the same with another's in its place; None where no face is seen there."""

    recipe: str
    width: float
    """Of the face in the input, in pixels."""
    untouched: Likeness | None
    swapped: Likeness | None


def people(photos: Sequence[Path]) -> list[Person]:
    """Every face of the photographs, cut out such that all are of about one size."""
    found = []
    for path in photos:
        pixels = read(path).rgb.contiguous()
        for face in find_faces(pixels):
            left, top, width, height = face.box
            if width < LEAST:
                continue
            truth = cut_out(pixels, left + width / 2, top + height / 2, AROUND * width)
            here = at_the_middle([(each.box, each) for each in find_faces(truth)])
            if here is not None:
                found.append(
                    Person(
                        name=f"{path.stem}_{left}_{top}",
                        truth=truth,
                        box=here.box,
                        marks=np.array(landmarks(truth, here.box), np.float32),
                        embedding=embeddings([truth], here.box)[0],
                    )
                )
    return found


def cut_out(pixels: Tensor, across: float, down: float, side: float) -> Tensor:
    """(3, SIDE, SIDE) around a place, in 8 bits; beyond the photograph its edge is carried on."""
    half = round(side / 2)
    padded = torch.nn.functional.pad(pixels[None], [half] * 4, mode="replicate")[0]
    top, left = round(down), round(across)
    return in_8_bits(resize(padded[:, top : top + 2 * half, left : left + 2 * half].contiguous(), SIDE, SIDE))


def at_the_middle(places: Sequence[tuple[Box, Found]]) -> Found | None:
    """What holds the middle of what is cut out; None where nothing does."""
    for (left, top, width, height), found in places:
        if left < SIDE / 2 < left + width and top < SIDE / 2 < top + height:
            return found
    return None


def restored(person: Person, recipe: str, work: Path | None) -> Evidence:
    """Made bad and restored, with the witness's clean preview; taken from ``work`` where it is there."""
    path = None if work is None else work / f"{person.name}__{recipe}.npz"
    if path is None or not path.exists():
        pipeline = open_witness("cpu")
        given = Picture(pixels=in_8_bits(degraded(person.truth, drawn_for(recipe, person.name))))
        scale = SIDE / given.width
        result = pipeline(given, pipeline.options(scale=scale))[0].picture
        plain = pipeline.preview(given, pipeline.options(scale=scale, detail=0.0))
        pictures = {"before": given.pixels} | {
            name: resize(each.rgb.contiguous(), SIDE, SIDE) for name, each in (("after", result), ("weak", plain))
        }
        stored = {name: levels(each).round().byte().numpy() for name, each in pictures.items()}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, allow_pickle=False, **stored)
    else:
        with np.load(path, allow_pickle=False) as file:
            stored = {name: file[name] for name in ("before", "after", "weak")}
    planes = {name: torch.from_numpy(each).float() for name, each in stored.items()}
    return Evidence(**planes, strong=[planes["weak"]], scale=SIDE / planes["before"].shape[-1])


def swapped(evidence: Evidence, person: Person, other: Person) -> Evidence:
    """With the face of another in the result, turned and scaled by the landmarks, of the brightness that was there."""
    matrix, _ = cv2.estimateAffinePartial2D(other.marks, person.marks)
    source = levels(other.truth).round().byte().permute(1, 2, 0).contiguous().numpy()
    turned = cv2.warpAffine(source, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    face = torch.from_numpy(turned).permute(2, 0, 1).float()
    left, top, width, height = person.box
    down, across = (torch.arange(SIDE) - middle for middle in (top + 0.45 * height, left + width / 2))
    inside = (down[:, None] / (0.66 * height)) ** 2 + (across / (0.56 * width)) ** 2 < 1
    share = gaussian(inside.float()[None], 3.0)
    there = [(share * picture).sum((1, 2), keepdim=True) / share.sum() for picture in (evidence.after, face)]
    return replace(
        evidence, after=torch.lerp(evidence.after, (face + there[0] - there[1]).clamp(0, 255), share).round()
    )


def cases(found: Sequence[Person], draws: int, work: Path | None) -> Iterator[Case]:
    """Every face under so many of the recipes, in turn."""
    for number in range(min(draws, len(RECIPES))):
        for place, person in enumerate(found):
            recipe = RECIPES[(place + number) % len(RECIPES)]
            evidence = restored(person, recipe, work)
            others = [each for each in found if float((each.embedding - person.embedding).norm()) > ONE_PERSON]
            other = others[(7 * number + place) % len(others)]
            seen = [
                at_the_middle([(each.box, each) for each in compare_faces(which)])
                for which in (evidence, swapped(evidence, person, other))
            ]
            width = person.box[2] / evidence.scale
            yield Case(recipe=recipe, width=width, untouched=seen[0], swapped=seen[1])


def print_usual(found: Sequence[Case]) -> None:
    """The similarities by the width of the face."""
    rows, told = [], []
    for low, high in zip(SIZES, [*SIZES[1:], float("inf")], strict=True):
        own = [each for each in found if low <= each.width < high]
        same, other = (
            np.array([each.similarity for each in seen if each is not None])
            for seen in zip(*((each.untouched, each.swapped) for each in own), strict=True)
        ) if own else (np.array([]), np.array([]))  # fmt: skip
        if min(len(same), len(other)) < FEWEST:
            continue
        usual, least = float(np.quantile(same, 0.05)), float(same.min())
        numbers = [f"{usual:.2f}", f"{least:.2f}", f"{np.quantile(other, 0.95):.2f}", f"{other.max():.2f}"]
        rows.append([f"{low:g}", str(len(same)), *numbers[:2], str(len(other)), *numbers[2:]])
        told.append(f"Usual({low:g}, {usual:.2f}, {least - MARGIN:.2f})")
    head = ["from px", "untouched", "19 of 20 from", "least", "another's", "19 of 20 up to", "most"]
    print(markdown_table([head, *rows]))
    print(f"\nUSUAL = ({', '.join(told)})\n")


def print_found(found: Sequence[Case]) -> None:
    """What the verdicts of now come to, by recipe."""
    rows = []
    for recipe in (*RECIPES, "all"):
        own = [each for each in found if recipe in (each.recipe, "all")]
        seen = [each.untouched for each in own if each.untouched is not None]
        verdicts = [None if each.swapped is None else each.swapped.verdict for each in own]
        missed = str(verdicts.count(DOUBTFUL)), str(verdicts.count(None))
        alarms = (str(sum(each.verdict == verdict for each in seen)) for verdict in (ANOTHER, DOUBTFUL))
        rows.append([recipe, f"{verdicts.count(ANOTHER)} of {len(own)}", *missed, str(len(seen)), *alarms])
    head = ["recipe", "another's found", "doubtful", "no face seen", "untouched seen", "called another's", "doubtful"]
    print(markdown_table([head, *rows]))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--draws", type=int, default=len(RECIPES))
    arguments = parser.parse_args()
    found = people(find_pictures(arguments.photos))
    print(f"{len(found)} faces\n", flush=True)
    tried = list(cases(found, arguments.draws, arguments.work))
    print_usual(tried)
    if USUAL:
        print_found(tried)


if __name__ == "__main__":
    main()
