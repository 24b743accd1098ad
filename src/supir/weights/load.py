"""Original files straight into models, never two copies: built on the meta device, then filled tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from supir.errors import KeyMismatchError
from supir.models.quantized import QuantizedConv2d, QuantizedLinear, quantize_weights
from supir.weights.checkpoint import StateDict, TensorSource
from supir.weights.gather import Gathered, gather
from supir.weights.layout import COMPONENTS, HeadDims
from supir.weights.plan import ComponentPlan, make_plan
from supir.weights.report import KeyReport

Dtypes = torch.dtype | Mapping[str, torch.dtype] | None


def load_single_files(
    sdxl: Path | str,
    supir: Path | str | None = None,
    *,
    vae: Path | str | None = None,
    text: Path | str | None = None,
    dtype: Dtypes = torch.float32,
    strict: bool = True,
    components: Sequence[str] = COMPONENTS,
    head_dims: HeadDims | None = None,
) -> tuple[dict[str, Any], KeyReport]:
    """Components made from an SDXL file or folder and a published SUPIR file; where both have a key, SUPIR's counts.

    Args:
        supir: None when the first holds everything.
        vae, text: see `supir.weights.gather.gather`.
        dtype: of all parameters, or one per component with a `default`, as diffusers' `dtype`; None keeps each
            tensor's own.
        strict: see `supir.weights.plan.make_plan`.
        components: those wanted.

    Returns:
        The models by component name, in evaluation mode on the CPU, and the report on the keys.

    Raises:
        UnsafeCheckpointError: a file could run code when read.
        WeightsError: a file is missing, damaged, truncated or of another kind.
        KeyMismatchError: keys are missing or mis-shaped, or a part is absent and `strict` is set.
    """
    given = gather(sdxl, supir, vae=vae, text=text)
    return load_gathered(given, dtype=dtype, strict=strict, components=components, head_dims=head_dims)


def load_gathered(
    given: Gathered,
    *,
    dtype: Dtypes = torch.float32,
    strict: bool = True,
    components: Sequence[str] = COMPONENTS,
    head_dims: HeadDims | None = None,
    stored: Mapping[str, str] = MappingProxyType({}),
) -> tuple[dict[str, Any], KeyReport]:
    """As `load_single_files`, from what was opened; ``stored``: the kind in which a component's weights are stored."""
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


def load_components(
    source: TensorSource | Mapping[str, Tensor],
    *,
    dtype: Dtypes = torch.float32,
    strict: bool = True,
    components: Sequence[str] = COMPONENTS,
    head_dims: HeadDims | None = None,
    what: str = "state dict",
) -> tuple[dict[str, Any], KeyReport]:
    """As `load_single_files`, from an open source or a dictionary under original keys."""
    if isinstance(source, Mapping):
        source = StateDict(source)
    plan = make_plan(source, head_dims=head_dims, components=components, strict=strict, what=what)
    for component in plan.components:
        _fill(component, source, _dtype_of(component.name, dtype))
    return {component.name: component.model for component in plan.components}, plan.report


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], *, what: str = "state dict") -> KeyReport:
    """Load a state dict under our own names; the tensors become the parameters, without a copy.

    Raises:
        KeyMismatchError: keys are missing, unexpected or mis-shaped; the model is unchanged then.
    """
    own = model.state_dict()
    report = KeyReport(
        num_tensors=len(own.keys() & tensors.keys()),
        missing=tuple(name for name in own if name not in tensors),
        unexpected=tuple(name for name in tensors if name not in own),
        mis_shaped=tuple(
            f"{name} {tuple(tensor.shape)}, the model has {tuple(own[name].shape)}"
            for name, tensor in tensors.items()
            if name in own and tensor.shape != own[name].shape
        ),
    )
    if not report.ok or report.unexpected:
        raise KeyMismatchError(f"{what}: {report.summary()}\nThe file belongs to a model of another configuration.")
    model.load_state_dict(tensors, assign=True)
    return report


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
