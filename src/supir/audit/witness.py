"""The witness: what else the input could have become, by the bundled model's plain and vivid ends and other seeds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from torch import Tensor

from supir.audit.windows import levels
from supir.image import Picture, resize

if TYPE_CHECKING:
    from supir.pipeline import SupirPipeline

PLAIN, VIVID = 0.0, 1.0
"""Ends of ``detail``."""
FIRST_SEED = 1
"""Of the witness's versions, one after another; results mostly have seed 0."""


@cache
def open_witness(device: str | None = None) -> SupirPipeline:
    """The bundled model, opened once in a process."""
    from supir.pipeline import SupirPipeline
    from supir.restoration.encoding import LastEncodings
    from supir.weights.device import best_device

    found = SupirPipeline.from_pretrained(device=device or best_device())
    found.set_progress_bar_config(disable=True)
    found.last_encodings = LastEncodings()
    return found


def questioned(
    pipeline: SupirPipeline,
    before: Picture,
    height: int,
    width: int,
    seeds: int = 1,
    on_version: Callable[[int], None] = lambda done: None,
) -> tuple[Tensor, list[Tensor]]:
    """The plain clean preview, and the vivid one with so many sampled versions, (3, height, width) in grey levels.

    Args:
        pipeline: ``open_witness``.
        before: the input.
        height, width: of the result.
        seeds: versions to sample, 1 or more.
        on_version: told after each of the ``seeds + 1`` pieces of work how many are done; raise from it to stop.
    """

    def shown(picture: Picture) -> Tensor:
        return levels(resize(picture.rgb, height, width))

    scale = max(height / before.height, width / before.width)
    weak = shown(pipeline.preview(before, pipeline.options(scale=scale, detail=PLAIN)))
    on_version(1)
    strong: list[Tensor] = []
    for number in range(seeds):
        found = pipeline(
            before,
            pipeline.options(scale=scale, detail=VIVID, seed=FIRST_SEED + number),
            on_preview=(lambda preview: strong.append(shown(preview))) if not strong else None,
        )
        strong.append(shown(found[0].picture))
        on_version(number + 2)
    return weak, strong
