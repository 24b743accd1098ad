"""Original weights straight into models, as tests have them: from files, or from a dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supir.weights.checkpoint import StateDict
from supir.weights.gather import gather
from supir.weights.layout import COMPONENTS, HeadDims
from supir.weights.plan import make_plan
from supir.weights.report import KeyReport
from supir.weights.runtime import fill, load_gathered


def load_single_files(
    sdxl: Path, supir: Path | None = None, *, vae: Path | None = None, text: Path | None = None, **options: Any
) -> tuple[dict[str, Any], KeyReport]:
    """As `load_gathered`, from files."""
    return load_gathered(gather(sdxl, supir, vae=vae, text=text), **options)


def load_components(
    tensors: Mapping[str, Tensor],
    *,
    strict: bool = True,
    components: Sequence[str] = COMPONENTS,
    head_dims: HeadDims | None = None,
) -> tuple[dict[str, Any], KeyReport]:
    """The same of tensors under original keys."""
    source = StateDict(tensors)
    plan = make_plan(source, head_dims=head_dims, components=components, strict=strict, what="state dict")
    for component in plan.components:
        for name in component.origins:
            fill(component.model, name, component.tensor(name, source, torch.float32), torch.float32)
    return {component.name: component.model for component in plan.components}, plan.report
