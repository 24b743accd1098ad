"""Original files straight into models, never two copies: built on the meta device, then filled tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from supir.models.quantized import QuantizedConv2d, QuantizedLinear, quantize_weights
from supir.weights.checkpoint import TensorSource
from supir.weights.gather import Gathered
from supir.weights.layout import COMPONENTS, HeadDims
from supir.weights.plan import ComponentPlan, make_plan
from supir.weights.report import KeyReport

Dtypes = torch.dtype | Mapping[str, torch.dtype] | None


def load_gathered(
    given: Gathered,
    *,
    dtype: Dtypes = torch.float32,
    strict: bool = True,
    components: Sequence[str] = COMPONENTS,
    head_dims: HeadDims | None = None,
    stored: Mapping[str, str] = MappingProxyType({}),
) -> tuple[dict[str, Any], KeyReport]:
    """Components made of what was opened.

    Args:
        given: an SDXL file or folder, and most often a published SUPIR file.
        dtype: of all parameters, or one per component with a `default`, as diffusers' `dtype`; None keeps each
            tensor's own.
        strict: see `supir.weights.plan.make_plan`.
        components: those wanted.
        head_dims: of attention, where they cannot be told from the weights; None takes what was found.
        stored: the kind in which a component's weights are stored.

    Returns:
        The models by component name, in evaluation mode on the CPU, and the report on the keys.

    Raises:
        WeightsError: a file is damaged or truncated.
        KeyMismatchError: keys are missing or mis-shaped, or a part is absent and `strict` is set.
    """
    plan = make_plan(
        given.source,
        head_dims=head_dims or given.head_dims,
        components=components,
        strict=strict,
        what=given.what,
        traits=given.traits,
    )
    for component in plan.components:
        kind = _dtype_of(component.name, dtype)
        if component.name in stored:
            quantize_weights(nn.Module.to(component.model, kind), stored[component.name])
        _fill(component, given.source, kind)
    return {component.name: component.model for component in plan.components}, plan.report


def _dtype_of(component: str, dtype: Dtypes) -> torch.dtype | None:
    return dtype.get(component, dtype["default"]) if isinstance(dtype, Mapping) else dtype


def _fill(plan: ComponentPlan, source: TensorSource, dtype: torch.dtype | None) -> None:
    """Put each parameter in its place as soon as it is read, so that nothing is held twice."""
    for name in plan.origins:
        fill(plan.model, name, plan.tensor(name, source, dtype), dtype)


def fill(model: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype | None) -> None:
    """Make a tensor the parameter or buffer of that name; layers that store 8 bits a weight make them of it."""
    parent_name, _, own_name = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    if own_name == "weight" and isinstance(parent, (QuantizedLinear, QuantizedConv2d)):
        parent.store(tensor)
    elif own_name in parent._parameters:
        wanted = parent._parameters[own_name]
        tensor = tensor if dtype is None else tensor.to(dtype)
        setattr(parent, own_name, nn.Parameter(tensor, requires_grad=wanted is not None and wanted.requires_grad))
    else:
        setattr(parent, own_name, tensor)
