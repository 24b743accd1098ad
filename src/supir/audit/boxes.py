"""Boxes: places of a map that hang together, and how much of two is one place."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from supir.image.sizes import Box

LONGEST = 192
"""Places a side of the map in which boxes are looked for; a larger one is made smaller, its largest values kept."""
SAME_PLACE = 0.3
"""``overlap`` from which on two boxes are one place."""


def boxes(values: Tensor, limit: float, height: int, width: int) -> list[tuple[Box, float]]:
    """((left, top, width, height), the largest value) of what lies above a limit, the largest first.

    Args:
        values: (rows, columns).
        limit: what is above it counts.
        height, width: of the picture whose pixels the boxes are in.
    """
    rows, columns = (min(side, LONGEST) for side in values.shape)
    small = torch.nn.functional.adaptive_max_pool2d(values[None], (rows, columns))[0]
    left = {(int(row), int(column)) for row, column in (small > limit).nonzero()}
    found = []
    while left:
        begun = left.pop()
        waiting, members = deque([begun]), [begun]
        while waiting:
            row, column = waiting.popleft()
            for near in ((row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)):
                if near in left:
                    left.remove(near)
                    waiting.append(near)
                    members.append(near)
        tops, sides = zip(*members, strict=True)
        high, wide = height / rows, width / columns
        top, start = int(min(tops) * high), int(min(sides) * wide)
        end, bottom = round((max(sides) + 1) * wide), round((max(tops) + 1) * high)
        found.append(((start, top, end - start, bottom - top), max(float(small[place]) for place in members)))
    return sorted(found, key=lambda each: -each[1])


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right = min(first[0] + first[2], second[0] + second[2])
    bottom = min(first[1] + first[3], second[1] + second[3])
    shared = max(0, right - left) * max(0, bottom - top)
    return shared / max(1, first[2] * first[3] + second[2] * second[3] - shared)
