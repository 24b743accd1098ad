"""The one picture of an audit: the result in grey under green, amber and red; contradictions, faces in outline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from supir.audit.auditing import INVENTED, KEPT, RECONSTRUCTED
from supir.audit.faces import ANOTHER, DOUBTFUL, SAME, TOO_SMALL
from supir.audit.windows import luma
from supir.image.sizes import Box

COLOURS = {KEPT: (46, 160, 67), RECONSTRUCTED: (240, 180, 30), INVENTED: (215, 45, 45)}
"""Of the three kinds; what is kept is tinted least."""
STRENGTHS = {KEPT: 0.18, RECONSTRUCTED: 0.32, INVENTED: 0.5}
LINE = (255, 0, 255)
"""Around contradictions."""
FACES = {SAME: (0, 190, 255), DOUBTFUL: (255, 255, 255), ANOTHER: LINE, TOO_SMALL: (150, 150, 150)}
"""Around faces, by their verdict."""


def overlay(after: Tensor, classes: Tensor, outlined: Sequence[tuple[Box, tuple[int, int, int]]]) -> Tensor:
    """(3, H, W) in [-1, 1].

    Args:
        after: the result (3, H, W) in grey levels.
        classes: of its cells.
        outlined: boxes in its pixels, and the colour of each.
    """
    height, width = after.shape[-2:]
    grey = luma(after).expand(3, -1, -1)
    spread = torch.nn.functional.interpolate(classes[None, None].float(), (height, width), mode="nearest-exact")[0, 0]
    found = grey.clone()
    for kind, colour in COLOURS.items():
        tinted = torch.lerp(grey, grey.new_tensor(colour)[:, None, None].expand_as(grey), STRENGTHS[kind])
        found = torch.where(spread == kind, tinted, found)
    line = max(1, round(min(height, width) / 300))
    for (left, top, wide, high), colour in outlined:
        right, bottom = min(width, left + wide), min(height, top + high)
        frame = torch.zeros(height, width, dtype=torch.bool)
        frame[top:bottom, left:right] = True
        frame[top + line : bottom - line, left + line : right - line] = False
        found[:, frame] = found.new_tensor(colour)[:, None]
    return found / 127.5 - 1
