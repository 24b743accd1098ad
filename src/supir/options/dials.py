"""What one dial comes to in several options, and how the values of several sources go over one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_VIVID = {"text_guidance": 7.5, "text_guidance_start": 4.0, "control_scale": 0.93, "restoration_guidance": 4.0}
_PLAIN = {"text_guidance": 4.0, "text_guidance_start": 1.0, "control_scale": 1.0, "restoration_guidance": 2.0}
DIALS: dict[str, tuple[Mapping[str, float], Mapping[str, float]]] = {
    **dict.fromkeys(("quality", "fidelity", "fast"), (_PLAIN, _VIVID)),
    "lightning": (
        {"text_guidance": 1.5, "text_guidance_start": 1.5, "control_scale": 1.0},
        {"text_guidance": 2.0, "text_guidance_start": 2.0, "control_scale": 0.9},
    ),
}
"""What ``detail`` goes between with a model whose encoder has one end: what was published for fidelity and for quality
(reference section 13; paper section 4.1 for tau_r)."""


def dialled(preset: str, detail: float) -> dict[str, float]:
    """The numbers of a preset at a ``detail``; tau_r by equal factors, the others in equal steps."""
    plain, vivid = DIALS[preset]
    return {
        name: low * (vivid[name] / low) ** detail
        if name == "restoration_guidance"
        else low + (vivid[name] - low) * detail
        for name, low in plain.items()
    }


GOES_WITH = {
    "text_guidance": "text_guidance_start",
    "control_scale": "control_scale_start",
    "tile": "tile_overlap",
    "vae_tile": "decoder_tile",
}
"""What is unset when the first is set without it: a ramp's start, an overlap, belong to the end and the tile that they
were chosen with."""


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Values of several sources, the later before the earlier: a preset's, a model's, a person's.

    A layer that says the end of a ramp and not its start leaves the earlier start behind, so that guidance 1 is off
    whatever the preset; and so for all of ``GOES_WITH``.
    """
    found: dict[str, Any] = {}
    for layer in layers:
        left = [partner for name, partner in GOES_WITH.items() if name in layer and partner not in layer]
        found = {name: value for name, value in found.items() if name not in left} | dict(layer)
    return found
