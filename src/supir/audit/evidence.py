"""What speaks for and against each place of a result: the numbers that the map is made of.

before   the input, at the size of the result or smaller
after    the result that is audited
weak     the witness's plain end, a clean preview
strong   its vivid end, and what is sampled of it with some seeds
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from supir.audit.damage import Damage, damaged_again, estimate
from supir.audit.windows import cells, gaussian, gradient, grid, local_rms, luma, opponent, spread_over
from supir.image import resize

OCTAVES = (1.0, 2.0, 4.0, 8.0)
"""Deviations of the Gaussians between which an octave lies, in pixels; the finest begins at the pixels."""
REACHES = (1.0, 3.0, 8.0, math.inf)
"""Deviations of the windows in which contradictions are looked for, in pixels of the input; the last is all of it."""
CHANNELS = tuple(
    (reach, kind, colour)
    for reach in REACHES
    for kind in ("residual", "distance", "texture")
    for colour in ("luma", "red", "blue")
)
"""Of the statistics: the window; whether the result, damaged again, is not the input, or the result or its texture is
not the witness's; and in what.
"""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All pictures (3, H, W) in grey levels and of one size, but for ``before``, which may be smaller."""

    before: Tensor
    after: Tensor
    weak: Tensor
    strong: Sequence[Tensor]
    """The vivid end's clean preview, then what was sampled of it, a seed each: one at least."""
    scale: float
    """Side of the result over that of the input as it came."""

    @cached_property
    def damage(self) -> Damage:
        """Estimated with the faithful picture, so that inventions in the result do not matter."""
        return estimate(self.before, self.weak, self.scale)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input."""
        return self.before.shape[-2], self.before.shape[-1]

    @cached_property
    def residual(self) -> Tensor:
        """(3, h, w): what the input holds and the result, damaged again, does not."""
        return self.before - damaged_again(self.after, self.damage.blur, *self.size)

    def features(self) -> Tensor:
        """(number, rows, columns): of each cell, as the map's model takes them (``NAMES``)."""
        rows, columns = grid(*self.after.shape[-2:])
        spread = self.strong[0] - self.weak
        seeds = torch.stack(
            [local_rms(each - self.strong[0]) for each in self.strong[1:]] or [torch.zeros(rows, columns)]
        )
        distance = self.after - self.weak
        low = gaussian(distance, 2.0)
        planes = [
            local_rms(distance),
            local_rms(low),
            local_rms(spread),
            seeds.mean(0),
            *_detail(self.after),
            *_detail(self.weak),
            spread_over(_strength(self.residual), rows, columns),
            spread_over(gaussian(luma(self.residual), 1.5)[0].abs(), rows, columns),
            spread_over(_deviation(luma(self.before)), rows, columns),
            *(local_rms(gradient(luma(picture))) for picture in (self.after, self.weak, self.strong[0])),
        ]
        logs = torch.stack([torch.log1p(plane.clamp(min=0)) for plane in planes])
        around = gaussian(logs[[NAMES.index(name) for name in WIDE]], AROUND)
        brightness = cells(luma(self.weak)) / 255
        damage, one = self.damage, torch.ones(1, rows, columns)
        whole = [
            math.log1p(damage.noise), damage.blur, math.log(max(damage.scale, 0.25)), math.log(damage.resolved),
            math.log1p(max(damage.jpeg, 0.0)),
        ]  # fmt: skip
        lights = torch.stack([brightness, (brightness - 0.5).abs()])
        return torch.cat([logs, around, lights, *(one * value for value in whole)])

    def statistics(self, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What contradicts the input, and what may excuse it, on the input's grid.

        Args:
            among: (h, w), the places whose means stand for the whole picture; None takes all.

        Returns:
            squares (channels, h, w) in the order of ``CHANNELS``, and of each its causes (channels, causes, h, w): a
            constant, noise, what moves between the plain and the vivid end.
        """
        height, width = self.size
        distance = opponent(self.after - self.weak)
        fine = _pooled((distance - gaussian(distance, 2.0)).square(), height, width)
        distance = resize(distance, height, width, limits=None)
        movement = _pooled(luma(self.strong[0] - self.weak).square(), height, width)
        residual, squares, causes = opponent(self.residual), [], []
        among = torch.ones(height, width, dtype=torch.bool) if among is None else among
        whole = float(among.sum())
        for reach in REACHES:
            moved, noise = _mean(movement, reach, among), self.damage.noise**2
            averaged = noise / (whole if math.isinf(reach) else max(1.0, 4 * math.pi * reach**2))
            for found, loud in (
                (_mean(residual, reach, among).square(), averaged),
                (_mean(distance, reach, among).square(), averaged),
                (_mean(fine, reach, among), noise),
            ):
                squares.append(found)
                causes += [torch.stack([torch.ones_like(moved[0]), torch.full_like(moved[0], loud), moved[0]])] * 3
        return torch.cat(squares), torch.stack(causes)


WIDE = ("distance", "movement", "detail 1", "detail 2", "detail 4", "edges")
"""Features that are also taken from a wider surrounding."""
AROUND = 3.0
"""Deviation of that surrounding's window, in cells."""
LOGS = (
    "distance", "coarse distance", "movement", "seeds", "detail 1", "detail 2", "detail 4", "plain detail 1",
    "plain detail 2", "plain detail 4", "residual", "coarse residual", "input's deviation", "edges", "plain edges",
    "vivid edges",
)  # fmt: skip
"""Features that are logarithms of one more than grey levels."""
NAMES = (
    *LOGS, *(f"{name} around" for name in WIDE), "brightness", "extremeness", "noise", "blur", "scale", "resolved",
    "jpeg",
)  # fmt: skip
"""Of the features, in their order."""


def _detail(picture: Tensor) -> list[Tensor]:
    """Strength of the three finest octaves of (3, H, W), by cell."""
    plane, found = luma(picture), []
    for octave in OCTAVES[:3]:
        softer = gaussian(plane, octave)
        found.append(local_rms(plane - softer))
        plane = softer
    return found


def _strength(residual: Tensor) -> Tensor:
    """(h, w): strength of a residual (3, h, w) around each pixel of the input."""
    return gaussian(residual.square().mean(0, keepdim=True), 1.0)[0].clamp(min=0).sqrt()


def _deviation(plane: Tensor) -> Tensor:
    """(h, w): local deviation of (1, h, w)."""
    return (gaussian(plane.square(), 2.0) - gaussian(plane, 2.0).square()).clamp(min=0).sqrt()[0]


def _mean(planes: Tensor, reach: float, among: Tensor) -> Tensor:
    """(C, H, W): the mean around each place, over all places that are ``among`` where the reach is infinite."""
    if math.isinf(reach):
        return planes[:, among].mean(1)[:, None, None].expand_as(planes)
    return gaussian(planes, reach)


def _pooled(planes: Tensor, height: int, width: int) -> Tensor:
    """Means of (C, H, W) over what each pixel of the input covers."""
    return torch.nn.functional.adaptive_avg_pool2d(planes[None], (height, width))[0]
