"""`audit`: what a result kept of its input, what was reconstructed, what was invented."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from supir.audit.boxes import boxes
from supir.audit.calibration import Calibration
from supir.audit.consistency import Consistency, consistency
from supir.audit.damage import Damage
from supir.audit.evidence import CHANNELS, REACHES, Evidence
from supir.audit.windows import levels, spread_over
from supir.audit.witness import questioned
from supir.errors import OptionError
from supir.image import LARGE, Picture, resize
from supir.image.picture import on_white
from supir.image.sizes import shapes_apart

if TYPE_CHECKING:
    from supir.pipeline import SupirPipeline

KEPT, RECONSTRUCTED, INVENTED = 0, 1, 2
"""What a place of the map counts as."""
SMALLEST = 16
"""Pixels a side of what can be audited."""
MOST_FORGED = 0.5
"""Share of the picture up to which contradictions are places, and not the whole."""
FALSE_ALARMS = 0.05
"""Untouched pictures, of those of the calibration's kind, in which a contradiction is expected to be seen anywhere."""


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """A place where the result is not what the input shows."""

    box: tuple[int, int, int, int]
    """Left, top, width, height, in pixels of the result."""
    strength: float
    """Times what is expected of one untouched picture in twenty."""
    what: str
    """colour, content or texture."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an audit found on the pixels."""

    damage: Damage
    consistency: Consistency
    expected: Tensor
    """(H, W): by how many grey levels of 255 the result is expected to be off around each pixel."""
    classes: Tensor
    """(rows, columns) of cells: ``KEPT``, ``RECONSTRUCTED``, ``INVENTED``."""
    contradictions: tuple[Contradiction, ...]
    level: float

    def share(self, kind: int) -> float:
        """Share of the picture that counts as one of the three."""
        return float((self.classes == kind).float().mean())

    @cached_property
    def kept(self) -> float:
        """Share of the picture."""
        return self.share(KEPT)

    @cached_property
    def reconstructed(self) -> float:
        """Share of the picture."""
        return self.share(RECONSTRUCTED)

    @cached_property
    def invented(self) -> float:
        """Share of the picture."""
        return self.share(INVENTED)


def check_sizes(before: tuple[int, int], after: tuple[int, int]) -> None:
    """Refuse a result, and its input, (width, height) each, that are too small, or too large for memory.

    Raises:
        OptionError: they are.
    """
    result = f"the result has {after[0]} x {after[1]} pixels"
    if min(*before, *after) < SMALLEST:
        raise OptionError(f"{result}, of {before[0]} x {before[1]}; an audit needs {SMALLEST} a side")
    if after[0] * after[1] > LARGE:
        raise OptionError(f"{result}; those of up to {LARGE / 1e6:g} megapixels can be audited")


def check_pair(before: Picture, after: Picture) -> None:
    """Refuse what cannot be audited.

    Raises:
        OptionError: two shapes, too small, or too large for memory.
    """
    first, second = (before.width, before.height), (after.width, after.height)
    if shapes_apart(first, second):
        raise OptionError(
            f"the input is {first[0]} x {first[1]} pixels and the result {second[0]} x {second[1]}; an audit needs two"
            " of one shape: the picture, and what was made of all of it"
        )
    check_sizes(first, second)


def gathered(
    before: Picture,
    after: Picture,
    witness: SupirPipeline,
    *,
    seeds: int = 1,
    on_version: Callable[[int], None] = lambda done: None,
) -> Evidence:
    """What speaks for and against each place; the witness is asked for it.

    Args:
        before: the input.
        after: the result.
        witness: the bundled model (``open_witness``).
        seeds: how many versions it samples.
        on_version: as ``questioned`` takes it.

    Raises:
        OptionError: see ``check_pair``.
    """
    check_pair(before, after)
    before, after = (replace(on_white(each), path=None) for each in (before, after))
    weak, strong = questioned(witness, before, after.height, after.width, seeds, on_version)
    height, width = min(before.height, after.height), min(before.width, after.width)
    return Evidence(
        before=levels(resize(before.rgb.contiguous(), height, width)), after=levels(after.rgb),
        weak=weak, strong=strong, scale=after.height / before.height,
    )  # fmt: skip


def judged(evidence: Evidence, calibration: Calibration, *, level: float = 0.1, rate: float = FALSE_ALARMS) -> Findings:
    """The map, its classes and the contradictions.

    Args:
        evidence: of the pair.
        calibration: what makes the map mean something.
        level: of what is wrong, at most this share is expected to be called kept, and of what is right, invented.
        rate: of untouched pictures, those in which a contradiction is seen.

    Raises:
        OptionError: the calibration's photographs are too few for that.
    """
    expected = calibration.expected(evidence.features())
    against = _against(evidence, calibration, calibration.alarm_above(rate))
    classes = torch.full(expected.shape, RECONSTRUCTED)
    classes[expected <= calibration.kept_below(level)] = KEPT
    classes[expected >= calibration.invented_above(level)] = INVENTED
    strongest = against.amax(0)
    classes[_on_cells(strongest, expected.shape) > 1] = INVENTED
    height, width = evidence.after.shape[-2:]
    return Findings(
        damage=evidence.damage,
        consistency=consistency(evidence),
        expected=spread_over(torch.expm1(expected.clamp(min=0)), height, width),
        classes=classes,
        contradictions=_contradictions(against, height, width),
        level=level,
    )


def _against(evidence: Evidence, calibration: Calibration, limit: float) -> Tensor:
    """(channels, h, w): contradictions, above 1 where they count.

    A forged place moves the means of wide windows and of the whole picture too. So where narrow windows contradict,
    wide ones count only away from there, and for the whole picture stand the places away from there.
    """
    found = calibration.contradiction(*evidence.statistics()) / limit
    narrow, wide, widest = REACHES[-3:]
    reaches = torch.tensor([reach for reach, _, _ in CHANNELS])
    forged = found[reaches <= narrow].amax(0) > 1
    if not forged.any() or forged.float().mean() > MOST_FORGED:
        return found
    away = ~_around(forged, round(3 * narrow))
    if away.any():
        found = calibration.contradiction(*evidence.statistics(away)) / limit
    else:
        found[reaches == widest] = 0
    found[reaches == wide] *= ~_around(forged, round(3 * wide))
    return found


def _around(places: Tensor, distance: int) -> Tensor:
    """(h, w): the places, and those so many pixels from them."""
    grown = torch.nn.functional.max_pool2d(places[None].float(), 2 * distance + 1, 1, distance)
    return grown[0] > 0


def _on_cells(plane: Tensor, shape: torch.Size) -> Tensor:
    """The largest of a plane over what each cell covers of it."""
    rows, columns = shape
    if rows >= plane.shape[0]:
        return torch.nn.functional.interpolate(plane[None, None], (rows, columns), mode="nearest-exact")[0, 0]
    return torch.nn.functional.adaptive_max_pool2d(plane[None], (rows, columns))[0]


def _contradictions(against: Tensor, height: int, width: int) -> tuple[Contradiction, ...]:
    """Boxes of what lies above 1, and what is strongest in each."""
    found = []
    rows, columns = against.shape[-2:]
    for (left, top, wide, high), strength in boxes(against.amax(0), 1.0, height, width):
        lines = slice(top * rows // height, max(top * rows // height + 1, (top + high) * rows // height))
        across = slice(left * columns // width, max(left * columns // width + 1, (left + wide) * columns // width))
        channel = int(against[:, lines, across].flatten(1).amax(1).argmax())
        _, kind, colour = CHANNELS[channel]
        what = "colour" if colour != "luma" else "texture" if kind == "texture" else "content"
        found.append(Contradiction(box=(left, top, wide, high), strength=strength, what=what))
    return tuple(found)
