"""Which original tensor becomes which parameter, and what does not fit: settled from names and shapes, before any read.

Conversion and loading both follow a `Plan`; they differ only in where the tensors go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from supir.models.adaptor import SupirAdaptor
from supir.models.autoencoder import SupirAutoencoder
from supir.models.unet import SupirUNet
from supir.weights.checkpoint import TensorSource
from supir.weights.keymap import DROPPED, KeyMap, Shaping, shaped, shaped_size
from supir.weights.layout import (
    COMPONENTS,
    HeadDims,
    ModelLayout,
    adaptor_config,
    autoencoder_config,
    read_layout,
    text_config,
    unet_config,
)
from supir.weights.report import KeyReport

_BUILDERS: dict[str, Callable[[ModelLayout], Any]] = {
    "autoencoder": lambda layout: SupirAutoencoder(**autoencoder_config(layout)),
    "unet": lambda layout: SupirUNet(**unet_config(layout)),
    "adaptor": lambda layout: SupirAdaptor(**adaptor_config(layout)),
    "text_encoder": lambda layout: CLIPTextModel(CLIPTextConfig(**text_config(layout, "text_encoder"))),
    "text_encoder_2": lambda layout: CLIPTextModelWithProjection(
        CLIPTextConfig(**text_config(layout, "text_encoder_2"))
    ),
}


@dataclass(frozen=True)
class Origin:
    """Where the value of a parameter comes from: an original key, or a constant where the files have none.

    `borrowed`: the key is another parameter's and stands in for a missing one, so its value is copied.
    """

    key: str | None
    shaping: Shaping = "same"
    constant: float = 0.0
    borrowed: bool = False


@dataclass(frozen=True, kw_only=True)
class ComponentPlan:
    """One component: its model, parameters on the meta device, and the origin of each of its tensors by name."""

    name: str
    model: Any
    origins: dict[str, Origin]
    shapes: dict[str, tuple[int, ...]]

    def tensor(self, name: str, source: TensorSource, dtype: torch.dtype | None) -> Tensor:
        """The value of parameter `name`, read now; `dtype` None keeps that of the file."""
        origin = self.origins[name]
        if origin.key is None:
            return torch.full(self.shapes[name], origin.constant, dtype=dtype or torch.float32)
        tensor = source.tensor(origin.key)
        if origin.borrowed:
            tensor = tensor.clone()
        # Narrow before reshaping, so that what is copied is the smaller one.
        return shaped(tensor if dtype is None else tensor.to(dtype), origin.shaping)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All components asked for, and the report on the keys."""

    layout: ModelLayout
    components: tuple[ComponentPlan, ...]
    report: KeyReport


def make_plan(
    source: TensorSource,
    *,
    head_dims: HeadDims | None = None,
    components: Sequence[str] = COMPONENTS,
    strict: bool = True,
    what: str = "weights",
) -> Plan:
    """Hold the keys of `source` against the models they describe.

    Args:
        components: those to plan; keys of others are not looked at.
        strict: raise unless every key fits. Otherwise what is missing is filled: the adaptor from the UNet's encoder,
            the degraded encoder from the encoder (so training can begin from SDXL alone), anything else with zeros, and
            norms' weights with ones.
        what: the files' names, for the message.

    Raises:
        KeyMismatchError: keys are missing, unexpected or mis-shaped and `strict` is set, or a whole model is missing.
    """
    layout = read_layout(source.shapes, head_dims)
    if not strict and "adaptor" in components and layout.adaptor is None:
        layout = replace(layout, adaptor=layout.unet)
    key_map = KeyMap(layout)
    sources = key_map.sources(source.shapes)
    missing: list[str] = []
    mis_shaped: list[str] = []
    unexpected = [key for key in source.shapes if key not in DROPPED and not key_map.targets(key)]
    plans = []
    for component in components:
        model = build_component(component, layout)
        found = {_own_name(model, name): origin for name, origin in sources.get(component, {}).items()}
        origins: dict[str, Origin] = {}
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        for name, shape in shapes.items():
            origin = found.pop(name, None)
            if origin is None:
                missing.append(_missing(key_map, component, name))
            elif shaped_size(source.shapes[origin[0]], origin[1]) != shape:
                mis_shaped.append(f"{origin[0]} {source.shapes[origin[0]]} for {component}.{name} {shape}")
                origin = None
            origins[name] = Origin(*origin) if origin else _filling(name, component, origins, sources)
        unexpected += [key for key, _ in found.values()]
        plans.append(ComponentPlan(name=component, model=model, origins=origins, shapes=shapes))
    report = KeyReport(
        num_tensors=sum(
            origin.key is not None and not origin.borrowed for plan in plans for origin in plan.origins.values()
        ),
        missing=tuple(missing),
        unexpected=tuple(dict.fromkeys(unexpected)),
        mis_shaped=tuple(mis_shaped),
        dropped=tuple(key for key in source.shapes if key in DROPPED),
    )
    if strict:
        report.require(what=what)
    return Plan(layout=layout, components=tuple(plans), report=report)


def build_component(component: str, layout: ModelLayout) -> Any:
    """The model of a component: parameters on the meta device, buffers that no file holds for real."""
    with init_empty_weights(include_buffers=False):
        model: nn.Module = _BUILDERS[component](layout)
    return model.eval()


def _own_name(model: nn.Module, name: str) -> str:
    """The key map's name as the class has it: transformers 5 dropped the prefix inside `CLIPTextModel`."""
    return name if hasattr(model, "text_model") else name.removeprefix("text_model.")


def _missing(key_map: KeyMap, component: str, name: str) -> str:
    original = key_map.original(component, name) or key_map.original(component, f"text_model.{name}")
    return f"{component}.{name}" + (f" (original name {original})" if original else "")


def _filling(
    name: str, component: str, origins: dict[str, Origin], sources: dict[str, dict[str, tuple[str, Shaping]]]
) -> Origin:
    """What stands in for a missing tensor when the plan is not strict."""
    if component == "autoencoder" and name.startswith("degraded_encoder."):
        return replace(origins[name.removeprefix("degraded_")], borrowed=True)
    if component == "adaptor" and name in sources.get("unet", {}):
        return Origin(*sources["unet"][name], borrowed=True)
    is_norm = name.endswith("weight") and "norm" in name
    return Origin(None, constant=1.0 if is_norm else 0.0)
