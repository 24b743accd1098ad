"""Bases that were distilled to few steps: told by what they are called, and which options do not belong to them.

Weights do not say how many steps they were distilled to; names and titles do, so nearly always that those who publish
them are known by it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from supir.options.combinations import steps_of
from supir.options.loras import split_loras

if TYPE_CHECKING:
    from supir.options import RestoreOptions

_KINDS = (
    ("Lightning", r"lightning"),
    ("DMD2", r"dmd_?2"),
    ("Hyper-SD", r"hyper[-_ ]?sd"),
    ("Turbo", r"turbo"),
    ("LCM", r"(?<![a-z])lcm(?![a-z])"),
)
"""What they are called; plain words such as hyper are those of other models too."""
OF_CONSISTENCY = ("LCM", "Hyper-SD", "DMD2")
"""Those whose every answer is a picture, for which noise is drawn anew."""
MOST_GUIDANCE, MOST_STEPS = 3.0, 20
"""Beyond these a distilled base burns colours and edges."""
FEW_STEPS = 10


def distilled_kind(*names: str) -> str | None:
    """How a model is distilled, by its names and titles; None where none says so."""
    text = "\n".join(names).lower()
    return next((kind for kind, pattern in _KINDS if re.search(pattern, text)), None)


def mismatch(options: RestoreOptions, base: str | None) -> str | None:
    """Why options and base do not belong together, in a sentence; None where nothing says so.

    Args:
        options: with the LoRAs that may make a distilled base of another.
        base: as `distilled_kind` tells it.
    """
    kind = base or distilled_kind(*(each.name for each in split_loras(options.lora) if each.strength > 0))
    steps = steps_of(options)
    count, strongest = len(steps.levels), max(steps.guidance[steps.live], default=1.0)
    if kind is not None and (strongest > MOST_GUIDANCE or count > MOST_STEPS):
        solver = " and the solver lcm" if kind in OF_CONSISTENCY else ""
        return (
            f"this base is distilled to few steps ({kind}); {count} steps with text guidance up to {strongest:g} burn"
            f" colours and edges: use the preset lightning{solver}"
        )
    ours = options.grid == "trailing" and options.start_sigma is None and options.solver != "reference_dpmpp_2m"
    if kind is None and ours and count <= FEW_STEPS and not options.reference_quirks:
        return (
            f"{count} steps on the grid trailing are for bases distilled to few steps, and neither name nor title of"
            " this one says that it is: it leaves noise or blur; use another preset, such as fast"
        )
    return None
