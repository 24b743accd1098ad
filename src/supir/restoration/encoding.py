"""What comes of a photo before anything is sampled, kept for the next version of the same photo."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import Tensor

from supir.options import RestoreOptions

MOST_PIXELS = 16_000_000
"""Of a photo whose latents and preview are kept: they take up to 200 MB."""
OF_SAMPLING = frozenset((
    "seed", "prompt", "tile_prompts", "positive_prompt", "negative_prompt", "long_prompt", "solver", "num_steps",
    "grid", "text_guidance", "text_guidance_start", "text_guidance_low", "text_guidance_high", "control_scale",
    "control_scale_start", "restoration_guidance", "start_sigma", "s_churn", "s_noise", "eta", "adaptor_every",
    "deep_cache_every", "color_fix", "tile", "tile_overlap", "tile_batch", "lora", "color_strength",
    "blend", "blend_mask",
))  # fmt: skip
"""Options that are heard after the anchor is made; all others, and those to come, count as heard before."""

Once = Callable[[str, Callable[[], Tensor]], Tensor]
"""Called with the name of a part and what makes it."""


class LastEncoding:
    """Keeps the parts of the photo that was encoded last: another seed, or another preset, begins with the sampling."""

    def __init__(self) -> None:
        self._of: tuple[Any, ...] = ()
        self._parts: dict[str, Tensor] = {}

    def once(self, pixels: Tensor, options: RestoreOptions, dtype: Any) -> Once | None:
        """How the parts of (B, 3, H, W) pixels are made, or found; None where they are made anew each time.

        Args:
            pixels: at working size.
            options: with quirks the anchor is drawn, and a stated memory has no room for what is kept.
            dtype: of the autoencoder.
        """
        if options.reference_quirks or options.memory is not None or pixels.numel() > 3 * MOST_PIXELS:
            return None
        heard = {name: value for name, value in asdict(options).items() if name not in OF_SAMPLING}
        digest = hashlib.sha256(pixels.detach().cpu().contiguous().numpy().data).hexdigest()
        of = digest, tuple(pixels.shape), str(pixels.device), str(dtype), tuple(heard.items())
        if of != self._of:
            self._of, self._parts = of, {}
        return self._once

    def _once(self, part: str, make: Callable[[], Tensor]) -> Tensor:
        if part not in self._parts:
            self._parts[part] = make()
        return self._parts[part]
