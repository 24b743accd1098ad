"""How well an audit finds what is wrong: its map against the true error, its promises, and planted inventions.

    python bench/audit.py --data FOLDER [--work FOLDER] [--draws 6] [--pictures N]

FOLDER holds good pictures that neither the model nor the calibration has seen. The middle of each is made bad by
recipes, restored by the bundled model and audited with its calibration. Printed are

1. the area under the curve of the map against the true error of a place, by recipe, beside plain alternatives;
2. the share of wrong places that was called kept, and of right ones that was called invented, at three levels;
3. how often a planted invention was found, and a contradiction seen in untouched pictures.

With ``--work`` the restorations are kept and gone on with.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from supir.audit import Calibration, open_witness
from supir.audit.auditing import FALSE_ALARMS, Findings, judged
from supir.audit.boxes import overlap
from supir.audit.calibrating import SIDE, in_8_bits, in_turn, tried
from supir.audit.calibration import WRONG
from supir.audit.evidence import Evidence
from supir.audit.faces import ANOTHER, compare_faces
from supir.audit.windows import gaussian, gradient, levels, local_rms, luma
from supir.degradation.pairs import cut
from supir.files.report import markdown_table
from supir.image import find_pictures, read, resize

RECIPES = ("sr4", "sr8", "blur2_sr4", "sr4_noise40", "blur2_sr4_noise20_jpeg50", "default")
LEVELS = (0.05, 0.1, 0.2)
BADLY = 25.0
"""Levels of a second, larger error that the map is held against."""
PATCH = 64
"""Pixels a side of what is planted."""
CASTS = ((8.0, 0.0, -8.0), (-8.0, 4.0, 6.0))
"""Grey levels that colour casts add to red, green and blue."""
PLATE, LETTERS = (44, 132), 32
"""Height and width of plates with letters, and the letters' size, in pixels of the original."""
MANY, FEW = 48, 18
"""Results in which each of the other inventions is planted, and pictures that are restored with letters or a face."""
CAPITALS = "ABCDEFGHKLMNPRSTUVXYZ"
Place = tuple[int, int, int, int]
"""Top, left, height, width."""


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A restored picture, its true error by place, and what the map and the alternatives say of each place."""

    name: str
    recipe: str
    evidence: Evidence
    truth: Tensor
    error: Tensor
    expected: Tensor
    alternatives: tuple[Tensor, ...]
    alarmed: bool
    """Whether something seems to contradict the input, which nothing does."""


ALTERNATIVES: dict[str, Callable[[Evidence], Tensor]] = {
    "result - preview": lambda e: local_rms(e.after - e.strong[0]),
    "result - plain preview": lambda e: local_rms(e.after - e.weak),
    "seed spread": lambda e: local_rms(e.strong[1] - e.after),
    "sharpness": lambda e: local_rms(gradient(luma(e.after))),
}


def pairs(
    data: Path, work: Path | None, draws: int, pictures: int | None, calibration: Calibration
) -> Iterator[Audited]:
    """Every picture under so many of the recipes, in turn."""
    for path, recipe in in_turn(sorted(find_pictures([str(data)]))[:pictures], RECIPES, draws):
        truth = levels(cut(read(path).rgb, SIDE))
        evidence = _restored(truth, path.stem, recipe, work)
        against = calibration.contradiction(*evidence.statistics()) / calibration.alarm_above(FALSE_ALARMS)
        yield Audited(
            name=path.stem, recipe=recipe, evidence=evidence, truth=truth, error=local_rms(evidence.after - truth),
            expected=calibration.expected(evidence.features()),
            alternatives=tuple(score(evidence) for score in ALTERNATIVES.values()),
            alarmed=bool((against > 1).any()),
        )  # fmt: skip


def _restored(truth: Tensor, name: str, recipe: str, work: Path | None) -> Evidence:
    """Of (3, H, W) in grey levels, which is rounded; taken from ``work`` where it is there."""
    path = None if work is None else work / f"{name}__{recipe}.npz"
    if path is not None and path.exists():
        return _stored(path)
    witness = open_witness("cpu")
    evidence = tried(in_8_bits(truth / 127.5 - 1), name, recipe, witness, witness)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _store(path, evidence)
    return evidence


def _store(path: Path, evidence: Evidence) -> None:
    strong, seed = evidence.strong
    named = {"lq": evidence.before, "result": evidence.after, "weak": evidence.weak, "strong": strong, "seed1": seed}
    arrays = {name: picture.round().byte().numpy() for name, picture in named.items()}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _stored(path: Path) -> Evidence:
    with np.load(path, allow_pickle=False) as file:
        found = {name: torch.from_numpy(file[name]).float() for name in ("lq", "result", "weak", "strong", "seed1")}
    return Evidence(
        before=found["lq"], after=found["result"], weak=found["weak"], strong=[found["strong"], found["seed1"]],
        scale=found["result"].shape[1] / found["lq"].shape[1],
    )  # fmt: skip


def area(score: Tensor, wrong: Tensor) -> float:
    """Under the receiver operating characteristic, by ranks; ties count half."""
    _, inverse, counts = np.unique(score.flatten().numpy(), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    told = wrong.flatten().numpy()
    ones, zeros = told.sum(), (~told).sum()
    return float((ranks[told].sum() - ones * (ones + 1) / 2) / (ones * zeros)) if ones and zeros else float("nan")


def planted(evidence: Evidence, other: Tensor, kind: str, rng: np.random.Generator) -> tuple[Tensor, Place]:
    """The result with an invention, and where it is."""
    after = evidence.after.clone()
    height, width = after.shape[1:]
    if kind == "colour cast":
        cast = torch.tensor(CASTS[int(rng.integers(len(CASTS)))])[:, None, None]
        return (after + cast).clamp(0, 255).round(), (0, 0, height, width)
    if kind == "removed object":
        top, left = _busiest(evidence.weak)
        mask = np.zeros((height, width), np.uint8)
        mask[top : top + PATCH, left : left + PATCH] = 255
        filled = cv2.inpaint(after.byte().permute(1, 2, 0).contiguous().numpy(), mask, 5, cv2.INPAINT_TELEA)
        return torch.from_numpy(filled).permute(2, 0, 1).float(), (top, left, PATCH, PATCH)
    top, left = (int(rng.integers(0, side - PATCH)) for side in (height, width))
    from_top, from_left = (int(rng.integers(0, side - PATCH)) for side in other.shape[1:])
    texture = other[:, from_top : from_top + PATCH, from_left : from_left + PATCH]
    place = (top, left, PATCH, PATCH)
    share = torch.zeros(1, PATCH, PATCH)
    share[:, 6:-6, 6:-6] = 1
    return _laid_over(after, texture, place, gaussian(share, 3.0)), place


def _laid_over(after: Tensor, patch: Tensor, place: Place, share: Tensor) -> Tensor:
    """With a patch of the brightness and colour that are there already, so that only its content is another."""
    top, left, high, wide = place
    there = after[:, top : top + high, left : left + wide]
    patch = patch - patch.mean((1, 2), keepdim=True) + there.mean((1, 2), keepdim=True)
    after[:, top : top + high, left : left + wide] = torch.lerp(there, patch.clamp(0, 255), share)
    return after.round()


def _busiest(picture: Tensor) -> tuple[int, int]:
    """Top and left of the patch with most edges: where an object is."""
    edges = gaussian(gradient(luma(picture)), PATCH / 4)[0]
    height, width = (side - PATCH for side in edges.shape)
    inside = edges[PATCH // 2 : PATCH // 2 + height, PATCH // 2 : PATCH // 2 + width]
    best = int(inside.argmax())
    return best // width, best % width


def plate(words: str) -> Tensor:
    """(3, PLATE) in grey levels: dark capitals on a light plate."""
    image = Image.new("RGB", (PLATE[1], PLATE[0]), (228, 224, 210))
    ImageDraw.Draw(image).text(
        (PLATE[1] // 2, PLATE[0] // 2), words, (40, 42, 60), ImageFont.load_default(LETTERS), "mm"
    )
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def lettered(data: Path, work: Path | None, pictures: int) -> Iterator[tuple[str, Evidence, Tensor, Place]]:
    """Results of pictures with a plate, and with two of its letters changed: recipe, evidence, result, place."""
    rng = np.random.default_rng(1)
    high, wide = PLATE
    for path, recipe in in_turn(sorted(find_pictures([str(data)]))[:pictures], RECIPES, 1):
        truth = levels(cut(read(path).rgb, SIDE))
        top, left = (int(rng.integers(0, side - size)) for side, size in zip(truth.shape[1:], PLATE, strict=True))
        words = [str(rng.choice(list(CAPITALS))) for _ in range(5)]
        others = list(words)
        for number in rng.choice(5, 2, replace=False):
            others[number] = str(rng.choice([sign for sign in CAPITALS if sign != words[number]]))
        truth[:, top : top + high, left : left + wide] = plate("".join(words))
        evidence = _restored(truth, f"{path.stem}-letters", recipe, work)
        after = evidence.after.clone()
        after[:, top : top + high, left : left + wide] = plate("".join(others))
        yield recipe, evidence, after, (top, left, high, wide)


def faces(data: Path, work: Path | None, pictures: int) -> Iterator[tuple[str, Evidence, Tensor, Place]]:
    """Results of pictures that hold a portrait, and the same with another's: recipe, evidence, result, place."""
    rng = np.random.default_rng(2)
    people = torch.from_numpy(skimage.data.lfw_subset()[:100]).float() * 255
    axis = torch.linspace(-1.15, 1.15, PATCH)
    oval = gaussian(((axis[:, None] ** 2 + axis**2) < 1).float()[None], 2.0)
    for path, recipe in in_turn(sorted(find_pictures([str(data)]))[:pictures], RECIPES, 1):
        truth = levels(cut(read(path).rgb, SIDE))
        top, left = (int(rng.integers(0, side - PATCH)) for side in truth.shape[1:])
        first, second = (
            resize(people[int(number)].expand(3, -1, -1).contiguous(), PATCH, PATCH, limits=(0.0, 255.0))
            for number in rng.choice(len(people), 2, replace=False)
        )
        there = (slice(None), slice(top, top + PATCH), slice(left, left + PATCH))
        truth[there] = torch.lerp(truth[there], first, oval)
        evidence = _restored(truth, f"{path.stem}-face", recipe, work)
        place = (top, left, PATCH, PATCH)
        yield recipe, evidence, _laid_over(evidence.after.clone(), second, place, oval), place


def alarms(findings: Findings, place: Place) -> bool:
    """Whether a contradiction lies at a place: a tenth of it at least, or of itself where it is smaller.

    One that lies on more than half of the picture tells of nothing smaller than that.
    """
    top, left, high, wide = place
    picture = findings.expected.numel()
    for contradiction in findings.contradictions:
        x, y, width, height = contradiction.box
        if width * height > picture / 2 > high * wide:
            continue
        across = min(left + wide, x + width) - max(left, x)
        down = min(top + high, y + height) - max(top, y)
        if across > 0 and down > 0 and across * down >= 0.1 * min(high * wide, width * height):
            return True
    return False


def of_another(evidence: Evidence, place: Place) -> bool:
    """Whether a face at a place is called another's."""
    top, left, high, wide = place
    here = (left, top, wide, high)
    return any(each.verdict == ANOTHER and overlap(each.box, here) > 0 for each in compare_faces(evidence))


def print_areas(found: list[Audited]) -> None:
    """Of the map and of the alternatives, by recipe."""
    for limit in (WRONG, BADLY):
        print(f"\narea under the curve; wrong is an error above {limit:g} levels\n")
        rows = []
        for recipe in RECIPES:
            own = [each for each in found if each.recipe == recipe]
            wrong = torch.cat([(each.error > limit).flatten() for each in own])
            scores = zip(*((each.expected, *each.alternatives) for each in own), strict=True)
            values = [area(torch.cat([plane.flatten() for plane in planes]), wrong) for planes in scores]
            rows.append([recipe, str(len(own)), f"{wrong.float().mean():.2f}", *(f"{value:.3f}" for value in values)])
        print(markdown_table([["recipe", "pictures", "wrong", "map", *ALTERNATIVES], *rows]))


def print_promises(found: list[Audited], calibration: Calibration) -> None:
    """What became of the two promises, at each level."""
    rows = []
    for level in LEVELS:
        kept, invented = calibration.kept_below(level), calibration.invented_above(level)
        losses: dict[str, list[tuple[float, float]]] = {}
        shares = []
        for each in found:
            wrong, expected = each.error > WRONG, each.expected
            missed = float((expected[wrong] <= kept).float().mean()) if wrong.any() else 0.0
            alarmed = float((expected[~wrong] >= invented).float().mean()) if (~wrong).any() else 0.0
            losses.setdefault(each.name, []).append((missed, alarmed))
            shares.append((float((expected <= kept).float().mean()), float((expected >= invented).float().mean())))
        means = np.array([np.mean(some, 0) for some in losses.values()])
        errors = means.std(0, ddof=1) / np.sqrt(len(means))
        told = [f"{mean:.3f} ± {error:.3f}" for mean, error in zip(means.mean(0), errors, strict=True)]
        rows.append([f"{level:g}", *told, *(f"{share:.2f}" for share in np.mean(shares, 0))])
    print("\npromises: means over pictures, with their standard errors\n")
    print(markdown_table([["level", "wrong and called kept", "right and called invented", "kept", "invented"], *rows]))


def print_planted(found: list[Audited], calibration: Calibration, data: Path, work: Path | None) -> None:
    """What of the planted inventions was found."""
    rng = np.random.default_rng(0)
    counts: dict[str, dict[str, list[bool]]] = {}
    untouched = [each.alarmed for each in found]
    cases = []
    for kind in ("pasted texture", "removed object", "colour cast"):
        for number, each in enumerate(found[:: max(1, len(found) // MANY)]):
            other = found[(number + 7) % len(found)].truth
            cases.append((each.recipe, each.evidence, *planted(each.evidence, other, kind, rng), kind))
    cases += [(*each, "changed letters") for each in lettered(data, work, FEW)]
    cases += [(*each, "another face") for each in faces(data, work, FEW)]
    for recipe, evidence, after, place, kind in cases:
        alarmed = alarms(judged(replace(evidence, after=after), calibration), place)
        counts.setdefault(kind, {}).setdefault(recipe, []).append(alarmed)
        if kind == "another face" and find_spec("dlib") is not None:
            told = of_another(replace(evidence, after=after), place)
            counts.setdefault("another face, called so", {}).setdefault(recipe, []).append(told)
    print(f"\nuntouched results in which something contradicts: {sum(untouched)} of {len(untouched)}\n")
    rows = []
    for kind, by_recipe in counts.items():
        every = [each for some in by_recipe.values() for each in some]
        cells = [f"{sum(by_recipe[r])} of {len(by_recipe[r])}" if r in by_recipe else "-" for r in RECIPES]
        rows.append([kind, f"{sum(every)} of {len(every)}", *cells])
    print(markdown_table([["planted", "found", *RECIPES], *rows]))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--draws", type=int, default=len(RECIPES))
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--calibration", type=Path)
    arguments = parser.parse_args()
    calibration = Calibration.load(arguments.calibration) if arguments.calibration else Calibration.load()
    found = list(pairs(arguments.data, arguments.work, arguments.draws, arguments.pictures, calibration))
    print_areas(found)
    print_promises(found, calibration)
    print_planted(found, calibration, arguments.data, arguments.work)


if __name__ == "__main__":
    main()
