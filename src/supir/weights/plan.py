"""Which original tensor becomes which parameter, and what does not fit: settled from names and shapes, before any read.

Conversion and loading both follow a `Plan`; they differ only in where the tensors go.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from supir.errors import KeyMismatchError, WeightsError
from supir.models.adaptor import SupirAdaptor
from supir.models.autoencoder import SupirAutoencoder
from supir.models.unet import SupirUNet
from supir.weights.checkpoint import TensorSource
from supir.weights.keymap import KeyMap, Shaping, shaped, shaped_size
from supir.weights.kinds import is_autoencoder_alone
from supir.weights.layout import (
    COMPONENTS,
    PREFIXES,
    HeadDims,
    Shapes,
    Traits,
    adaptor_config,
    autoencoder_config,
    pooled_width,
    read_numbering,
    text_config,
    unet_config,
)
from supir.weights.report import KeyReport, is_harmless, telling

FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
"""The types that a weight may have; any other in a weight's place is a quantised one."""

V_PREDICTION = "v_pred"
ZERO_TERMINAL_SNR = "ztsnr"
"""Markers that fine-tunes carry as keys."""
NO_TRAITS = Traits()

Names = Mapping[str, Shapes]
"""Of each component that has any weights: their names as ours, and their shapes."""


@dataclass(frozen=True)
class Origin:
    """Where the value of a parameter comes from: an original key, or None where it begins as training begins it.

    `borrowed`: the key is another parameter's and stands in for a missing one, so its value is copied.
    """

    key: str | None
    shaping: Shaping = "same"
    borrowed: bool = False


@dataclass(frozen=True, kw_only=True)
class ComponentPlan:
    """One component: its model, parameters on the meta device, and the origin of each of its tensors by name.

    `begun` makes the values of those that have no key, by name.
    """

    name: str
    model: Any
    origins: dict[str, Origin]
    shapes: dict[str, tuple[int, ...]]
    begun: Callable[[], Mapping[str, Tensor]] = field(default=dict)

    def tensor(self, name: str, source: TensorSource, dtype: torch.dtype | None) -> Tensor:
        """The value of parameter `name`, read now; `dtype` None keeps that of the file."""
        origin = self.origins[name]
        if origin.key is None:
            return self.begun()[name].detach().to(dtype or torch.float32)
        tensor = source.tensor(origin.key)
        if origin.borrowed:
            tensor = tensor.clone()
        # Narrow before reshaping, so that what is copied is the smaller one.
        return shaped(tensor if dtype is None else tensor.to(dtype), origin.shaping)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All components asked for, and the report on the keys."""

    traits: Traits
    components: tuple[ComponentPlan, ...]
    report: KeyReport


def make_plan(
    source: TensorSource,
    *,
    head_dims: HeadDims | None = None,
    components: Sequence[str] = COMPONENTS,
    strict: bool = True,
    what: str = "weights",
    traits: Traits = NO_TRAITS,
) -> Plan:
    """Hold the keys of `source` against the models they describe.

    Args:
        components: those to plan; keys of others are not looked at.
        strict: raise where the parts that SUPIR adds are in no file. Otherwise they begin as training begins them: the
            adaptor as a copy of the UNet's encoder, the degraded encoder of the encoder, the connectors without effect.
            A part is whole or absent: one weight that is missing in it is an error either way.
        what: the files' names, for messages.
        traits: what configurations say; the files' own markers count where they say nothing.

    Warns:
        of keys that no place needs, and of a training that our noise levels do not wholly reach.

    Raises:
        KeyMismatchError: keys are missing or mis-shaped, or a part is absent.
        WeightsError: weights are quantised, or a key says that the model is another one.
    """
    _refuse_quantised(source, what)
    key_map = KeyMap(read_numbering(source.shapes))
    sources = key_map.sources(source.shapes)
    names = {
        component: {name: shaped_size(source.shapes[key], shaping) for name, (key, shaping) in of.items()}
        for component, of in sources.items()
    }
    absent = absent_parts(names, source.shapes, components, strict=strict, what=what)
    traits = _marked(source, traits)
    missing: list[str] = []
    mis_shaped: list[str] = []
    others = tuple(prefix for name in COMPONENTS if name not in components for prefix in PREFIXES[name])
    extra = [key for key in source.shapes if not key.startswith(others) and not key_map.targets(key)]
    plans = []
    for component in components:
        model = build_component(component, names, head_dims or HeadDims(), traits)
        found = {_own_name(model, name): origin for name, origin in sources.get(component, {}).items()}
        origins: dict[str, Origin] = {}
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        for name, shape in shapes.items():
            origin = found.pop(name, None)
            if origin is None and any(part.holds(component, name) for part in absent):
                origins[name] = _beginning(name, component, origins, sources)
            elif origin is None:
                missing.append(_missing(key_map, component, name))
            elif shaped_size(source.shapes[origin[0]], origin[1]) != shape:
                mis_shaped.append(f"{origin[0]} {source.shapes[origin[0]]} for {component}.{name} {shape}")
            else:
                origins[name] = Origin(*origin)
        extra += [key for key, _ in found.values()]
        begun = _connectors_begun(model) if component == "unet" else _zeros(shapes)
        plans.append(ComponentPlan(name=component, model=model, origins=origins, shapes=shapes, begun=begun))
    report = _report(plans, list(dict.fromkeys(extra)), missing, mis_shaped, absent)
    _refuse_telling(report.unexpected, what)
    report.require(what=what)
    if traits.zero_terminal_snr:
        warnings.warn(
            f"{what}: was trained down to no signal at all (zero terminal SNR); noise begins here at SDXL's highest"
            " level, so the darkest and brightest results may be less extreme",
            stacklevel=2,
        )
    return Plan(traits=traits, components=tuple(plans), report=report)


def _report(
    plans: Sequence[ComponentPlan],
    extra: Sequence[str],
    missing: Sequence[str],
    mis_shaped: Sequence[str],
    absent: Sequence[Part],
) -> KeyReport:
    origins = [origin for plan in plans for origin in plan.origins.values()]
    return KeyReport(
        num_tensors=sum(origin.key is not None and not origin.borrowed for origin in origins),
        missing=tuple(missing),
        unexpected=tuple(key for key in extra if not is_harmless(key)),
        mis_shaped=tuple(mis_shaped),
        dropped=tuple(key for key in extra if is_harmless(key)),
        begun=tuple(part.name for part in absent),
    )


def _refuse_quantised(source: TensorSource, what: str) -> None:
    """Refuse weights of whole numbers or of less than 8 bits, by name; buffers that no place needs may be so."""
    known = tuple(prefix for prefixes in PREFIXES.values() for prefix in prefixes)
    quantised = [
        key
        for key, dtype in source.dtypes.items()
        if dtype not in FLOATS and key.startswith(known) and key.endswith((".weight", ".bias"))
    ]
    if quantised:
        said = telling(source.shapes)
        raise WeightsError(
            f"{what}: {len(quantised)} of its weights are quantised{f', {said[1]}' if said else ''}, such as"
            f" {quantised[0]} of type {source.dtypes[quantised[0]]}. Give the original, with 16 or 32 bits a weight."
        )
    _refuse_telling(source.shapes, what)


def _refuse_telling(keys: Sequence[str] | Mapping[str, Any], what: str) -> None:
    """Refuse what would be another model without one of its keys."""
    found = telling(keys)
    if found is not None:
        raise WeightsError(
            f"{what}: holds {found[0]}, and so {found[1]}: it would be another model without that key, so it was not"
            " converted. Give an SDXL base, or a fine-tune of it, with plain weights."
        )


def _marked(source: TensorSource, traits: Traits) -> Traits:
    """The traits, and what the markers of the files say beside them, or the table of signal that a training leaves."""
    table = "alphas_cumprod"
    ends_at_nothing = len(source.shapes.get(table, ())) == 1 and bool(source.tensor(table)[-1] < 1e-4)
    return replace(
        traits,
        prediction_type=traits.prediction_type or ("v_prediction" if V_PREDICTION in source.shapes else "epsilon"),
        zero_terminal_snr=traits.zero_terminal_snr or ZERO_TERMINAL_SNR in source.shapes or ends_at_nothing,
    )


def build_component(component: str, names: Names, head_dims: HeadDims, traits: Traits) -> Any:
    """The model of a component: parameters on the meta device, buffers that no file holds for real.

    Raises:
        KeyMismatchError: the weights from which its size is read are missing or mis-shaped.
    """
    own, pooled = names.get(component, {}), pooled_width(names.get("text_encoder_2", {}))
    try:
        with init_empty_weights(include_buffers=False):
            model: nn.Module
            if component == "autoencoder":
                model = SupirAutoencoder(**autoencoder_config(own, traits))
            elif component == "unet":
                model = SupirUNet(**unet_config(own, head_dims, pooled, traits))
            elif component == "adaptor":
                model = SupirAdaptor(**adaptor_config(own or names["unet"], head_dims, pooled))
            elif component == "text_encoder":
                model = CLIPTextModel(CLIPTextConfig(**text_config(own, head_dims.text_encoder, first=True)))
            else:
                config = CLIPTextConfig(**text_config(own, head_dims.text_encoder_2, first=False))
                model = CLIPTextModelWithProjection(config)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise KeyMismatchError(
            f"{component}: no model of SDXL's kind has these sizes, which are read from its weights ({error} is missing"
            " or mis-shaped). Give an SDXL file or folder and the published SUPIR file."
        ) from error
    return model.eval()


def _own_name(model: nn.Module, name: str) -> str:
    """The key map's name as the class has it: transformers 5 dropped the prefix inside `CLIPTextModel`."""
    return name if hasattr(model, "text_model") else name.removeprefix("text_model.")


def _missing(key_map: KeyMap, component: str, name: str) -> str:
    original = key_map.original(component, name) or key_map.original(component, f"text_model.{name}")
    return f"{component}.{name}" + (f" (original name {original})" if original else "")


def _beginning(
    name: str, component: str, origins: dict[str, Origin], sources: dict[str, dict[str, tuple[str, Shaping]]]
) -> Origin:
    """With what training begins where a whole part is absent."""
    if component == "autoencoder":
        return replace(origins[name.removeprefix("degraded_")], borrowed=True)
    if component == "adaptor" and name in sources.get("unet", {}):
        return Origin(*sources["unet"][name], borrowed=True)
    return Origin(None)


def _connectors_begun(unet: SupirUNet) -> Callable[[], Mapping[str, Tensor]]:
    """The connectors as their classes begin: without effect, and able to learn; the same each time."""

    @cache
    def made() -> Mapping[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.ModuleDict({"connectors": nn.ModuleList(unet._build_connectors())}).state_dict()

    return made


def _zeros(shapes: Mapping[str, tuple[int, ...]]) -> Callable[[], Mapping[str, Tensor]]:
    """What the adaptor has and the UNet has not: its convolution of the hint, which begins at zero."""
    return lambda: {name: torch.zeros(shapes[name]) for name in shapes if name.startswith("hint_conv.")}


_BASE = "give an SDXL single file or folder"
_VAE = "name a file or folder that has one with --vae (vae=)"
_TEXT = "name a folder or an SDXL file that has them with --text (text=)"
_SUPIR = "give the published SUPIR file beside the SDXL one"


@dataclass(frozen=True)
class Part:
    """A part of a component: how the names in it begin by which it is there, and where people get it.

    Training may begin without one whose ``prefix``, that of all its names, is not None.
    """

    name: str
    component: str
    beginning: str
    advice: str
    prefix: str | None = None

    def holds(self, component: str, name: str) -> bool:
        """Whether a parameter belongs to this part."""
        return component == self.component and self.prefix is not None and name.startswith(self.prefix)


PARTS = (
    Part("UNet", "unet", "down_blocks.", _BASE),
    Part("autoencoder", "autoencoder", "encoder.", _VAE),
    Part("text tower CLIP-L", "text_encoder", "text_model.encoder.layers.", _TEXT),
    Part("text tower CLIP-G", "text_encoder_2", "text_model.encoder.layers.", _TEXT),
    Part("adaptor", "adaptor", "down_blocks.", _SUPIR, prefix=""),
    Part("connectors", "unet", "connectors.", _SUPIR, prefix="connectors."),
    Part("degraded encoder", "autoencoder", "degraded_encoder.", _SUPIR, prefix="degraded_encoder."),
)


def absent_parts(
    names: Names, shapes: Shapes, components: Sequence[str], *, strict: bool, what: str
) -> tuple[Part, ...]:
    """The parts of these components that no key is of and that training may begin without.

    Raises:
        KeyMismatchError: another part is absent, or one of them and `strict` is set.
    """
    absent = [
        part
        for part in PARTS
        if part.component in components
        and not any(name.startswith(part.beginning) for name in names.get(part.component, ()))
    ]
    fatal = [part for part in absent if strict or part.prefix is None]
    if not fatal:
        return tuple(absent)
    advice = list(dict.fromkeys(part.advice for part in fatal))
    if is_autoencoder_alone(shapes) and "UNet" in (part.name for part in fatal):
        advice = [f"they are an autoencoder alone: {_BASE} first, and this one with --vae (vae=)"]
    if all(part.prefix is not None for part in fatal):
        advice.append("or let these parts begin as training begins them with --lenient (strict=False)")
    *others, last = (part.name for part in fatal)
    listed = " and ".join(filter(None, (", ".join(others), last)))
    raise KeyMismatchError(f"{what}: the files given hold no {listed}; {'; '.join(advice)}")
