"""What comes of a photo before anything is sampled, kept for the next version of the same photo."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import Tensor

from supir.options import RestoreOptions

MOST_PIXELS = 16_000_000
"""Of all photos whose latents and previews are kept: they take up to 200 MB."""
OF_SAMPLING = frozenset((
    "seed", "prompt", "tile_prompts", "positive_prompt", "negative_prompt", "long_prompt", "solver", "num_steps",
    "grid", "text_guidance", "text_guidance_start", "text_guidance_low", "text_guidance_high", "control_scale",
    "control_scale_start", "restoration_guidance", "start_sigma", "s_churn", "s_noise", "eta", "adaptor_every",
    "deep_cache_every", "color_fix", "tile", "tile_overlap", "tile_batch", "lora", "color_strength",
    "blend", "blend_mask", "marking", "region_edge", "always", "prompt_weights",
))  # fmt: skip
"""Options that are heard after the anchor is made; all others, and those to come, count as heard before."""


class Kept:
    """The parts of one photo that are there; called with the name of a part and what makes it."""

    def __init__(self, parts: dict[str, Tensor]) -> None:
        self.parts = parts

    def __call__(self, part: str, make: Callable[[], Tensor]) -> Tensor:
        """The part, made where it is not there."""
        if part not in self.parts:
            self.parts[part] = make()
        return self.parts[part]


class LastEncodings:
    """Keeps the parts of the photos that were encoded last: their restoration after a clean preview, another seed, or
    another preset begins with the sampling.
    """

    def __init__(self) -> None:
        self._photos: OrderedDict[tuple[Any, ...], dict[str, Tensor]] = OrderedDict()

    def once(self, pixels: Tensor, options: RestoreOptions, dtype: Any, enlargement: float | None) -> Kept | None:
        """The parts of (B, 3, H, W) pixels; None where they are made anew each time.

        Args:
            pixels: at working size.
            options: with quirks the anchor is drawn, and a stated memory has no room for what is kept.
            dtype: of the autoencoder.
            enlargement: as ``Restorer`` has it.
        """
        if options.reference_quirks or options.memory is not None or pixels.numel() > 3 * MOST_PIXELS:
            return None
        heard = {name: value for name, value in asdict(options).items() if name not in OF_SAMPLING}
        digest = hashlib.sha256(pixels.detach().cpu().contiguous().numpy().data).hexdigest()
        photo = digest, tuple(pixels.shape), str(pixels.device), str(dtype), enlargement, tuple(heard.items())
        parts = self._photos.setdefault(photo, {})
        self._photos.move_to_end(photo)
        while sum(math.prod(shape) for _, shape, *_ in self._photos) > 3 * MOST_PIXELS:
            self._photos.popitem(last=False)
        return Kept(parts)
