"""Going on in smaller tiles where memory runs out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

from supir.errors import OutOfMemoryError
from supir.options import RestoreOptions
from supir.tensors import memory

Result = TypeVar("Result")
Smaller = Callable[[RestoreOptions], RestoreOptions | None]

SMALLEST_TILE = 64
"""Pixels of the picture; below it tiles are mostly overlap."""
ADVICE = (
    "choose a smaller scale or min_size, hold less on the device (--quantize int8, --offload model or group), or free"
    " memory"
)
"""What takes less memory than the smallest tiles do."""


class SmallerTilesWarning(UserWarning):
    """Memory ran out, and the restoration goes on with smaller tiles."""


class TileBackoff:
    """What is in use: as it was asked for until memory runs out and the tiles of the options become smaller.

    ``together``: both branches of text guidance go through the networks in one call. The result is the same either way,
    so it is no option.
    """

    def __init__(self, options: RestoreOptions, *, together: bool = True) -> None:
        self.options, self.together = options, together

    def smaller_calls(
        self, options: RestoreOptions, longest: int, branches: int, smallest: int = SMALLEST_TILE
    ) -> RestoreOptions | None:
        """As ``smaller_tiles``, which cost quality; before them one of the ``branches`` a call, which costs none."""
        if options.tile_batch == 1 and self.together and branches > 1:
            self.together = False
            return options
        return smaller_tiles(options, longest, smallest)

    def run(self, work: Callable[[], Result], smaller: Smaller, on_change: Callable[[], None] | None = None) -> Result:
        """The result of ``work``, done again with smaller tiles as often as memory runs out.

        Args:
            work: reads the tiles from ``options`` whenever it is called; may be called again after a failure.
            smaller: the options to go on with, or None where there are no smaller tiles.
            on_change: called after the options have changed.

        Raises:
            OutOfMemoryError: memory ran out with the smallest tiles.
        """
        while True:
            before = self._named()
            try:
                return work()
            except (MemoryError, RuntimeError) as error:
                if not memory.ran_out(error):
                    raise
                found = smaller(self.options)
                if found is None:
                    raise OutOfMemoryError(
                        f"memory ran out with tiles as small as they get ({self._named()}): {error}; {ADVICE}"
                    ) from error
            # Only here, when the error is gone with all that its traceback held, is the memory free again.
            self.options = found
            warnings.warn(
                f"memory ran out with {before}; going on with {self._named()}", SmallerTilesWarning, stacklevel=1
            )
            if on_change is not None:
                on_change()
            memory.give_back()

    def _named(self) -> str:
        options = self.options
        decoder = "" if options.decoder_tile is None else f", decoder_tile {options.decoder_tile}"
        apart = "" if self.together else ", one branch of guidance at a time"
        return f"tile {options.tile}, tile_batch {options.tile_batch}, vae_tile {options.vae_tile}{decoder}{apart}"


def smallest_tile(options: RestoreOptions, native: int | None) -> int:
    """Pixels below which a tile for sampling is not made.

    Begun with pure noise, a prior has nothing but the tile and the words to know what it paints: of much less than its
    ``native`` size, that of its training, it makes nonsense. Begun with the preview it is told.
    """
    return max(SMALLEST_TILE, (native or 0) // 2) if options.start_sigma is None else SMALLEST_TILE


def smaller_tiles(options: RestoreOptions, longest: int, smallest: int = SMALLEST_TILE) -> RestoreOptions | None:
    """Half as much in one network call: fewer tiles, then smaller ones; None where neither can be, or prompts belong
    to the tiles.

    ``longest`` is the longer side of the working size in pixels: a larger tile is no larger than that. None of the
    results is below ``smallest``.
    """
    if options.tile_batch > 1:
        return options.replace(tile_batch=options.tile_batch // 2)
    if options.tile_prompts:
        return None  # there would be more tiles than prompts
    tile = min(options.tile, longest) // 2
    if tile < smallest:
        return None
    overlap = options.tile_overlap
    return options.replace(tile=tile, tile_overlap=None if overlap is None else min(overlap, tile // 2))


def smaller_vae_tile(options: RestoreOptions, longest: int) -> RestoreOptions | None:
    """Half the tile of encoding and decoding, of the larger first where they differ; None where both are the smallest.

    ``longest`` as in ``smaller_tiles``.
    """
    coder, decoder = (min(each or options.vae_tile, longest) for each in (options.vae_tile, options.decoder_tile))
    tile = max(coder, decoder) // 2
    if tile < SMALLEST_TILE:
        return None
    if options.decoder_tile is None:
        return options.replace(vae_tile=tile)
    return options.replace(vae_tile=min(coder, tile), decoder_tile=min(decoder, tile))
