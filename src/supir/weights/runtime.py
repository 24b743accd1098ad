"""How the networks of a model folder are loaded and run: their dtype, 8-bit storage, layout of memory, compiling."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from supir.errors import KeyMismatchError, OptionError, WeightsError
from supir.models.quantized import QuantizedConv2d, QuantizedLinear, quantize_weights
from supir.options import NetworkOptions
from supir.weights.checkpoint import Merged, open_checkpoint
from supir.weights.device import DTYPES, choose_dtype, choose_vae_dtype
from supir.weights.gather import Gathered
from supir.weights.layout import COMPONENTS, HeadDims
from supir.weights.model_folder import BUNDLED_MODEL, STORED
from supir.weights.plan import make_plan
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
    """Components made of what was opened, never held twice: built on the meta device, then filled tensor by tensor.

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
        kind = dtype.get(component.name, dtype["default"]) if isinstance(dtype, Mapping) else dtype
        if component.name in stored:
            quantize_weights(nn.Module.to(component.model, kind), stored[component.name])
        for name in component.origins:
            fill(component.model, name, component.tensor(name, given.source, kind), kind)
    return {component.name: component.model for component in plan.components}, plan.report


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


_STEM = "diffusion_pytorch_model"


def asked_of(dtype: Any, vae_dtype: Any = None, **networks: Any) -> tuple[NetworkOptions, dict[str, torch.dtype]]:
    """What Python asks of the networks: the options, and the arithmetic of components that have their own.

    Args:
        dtype: a torch dtype, its name, or as diffusers has it one of these for each component and for ``default``;
            None is ``auto``.
        vae_dtype: of the autoencoder, where ``dtype`` does not say it.
        networks: the other ``NetworkOptions``.

    Raises:
        OptionError: a value is none of those allowed, or the autoencoder's is said twice.
    """
    given = dict(dtype) if isinstance(dtype, Mapping) else {"default": dtype}
    names = {part: _name_of(kind) for part, kind in given.items()}
    coders = {_name_of(vae_dtype), names.pop("autoencoder", "auto")} - {"auto"}
    if len(coders) > 1:
        raise OptionError(f"vae_dtype and dtype say {' and '.join(sorted(coders))} of the autoencoder; say it once")
    found = NetworkOptions(dtype=names.pop("default", "auto"), vae_dtype=coders.pop() if coders else "auto", **networks)
    for name in names.values():
        found = replace(found, dtype=name) and found  # checked, not kept
    return found, {part: DTYPES[name] for part, name in names.items() if name != "auto"}


def _name_of(dtype: Any) -> str:
    return "auto" if dtype is None else str(dtype).removeprefix("torch.")


def check_variant(folder: Path, variant: str) -> None:
    """Refuse a variant of the files that a model folder does not have.

    Raises:
        OptionError: there are no such files; weights are narrowed by ``dtype``, whatever they are stored in.
    """
    if not any(folder.glob(f"*/*.{variant}.safetensors")) and not any(folder.glob(f"*/*.{variant}-*.safetensors")):
        raise OptionError(
            f"variant is {variant!r}, and {folder} has no such files; leave it out and say dtype='float16' or another"
        )


def keep_from_overflow(autoencoder: Any) -> None:
    """An autoencoder in float16 is widened to float32, in which it does not overflow, unless it says it bears that.

    As in SDXL's own pipelines (``force_upcast``): it gets there when a whole pipeline is cast.
    """
    if autoencoder.dtype is torch.float16 and autoencoder.config.get("force_upcast", True):
        nn.Module.to(autoencoder, torch.float32)


def load_stored(folder: Path, index: Mapping[str, Any], options: NetworkOptions, dtype: torch.dtype) -> dict[str, Any]:
    """The components of a model folder that are stored in 8 bits, each tensor changed as soon as it is read.

    ``index`` is the folder's, ``dtype`` what the networks calculate in; ``quantize`` of the options is not ``none``.

    Raises:
        WeightsError: files are missing or damaged.
        KeyMismatchError: the files lack weights, or have them in other shapes.
    """
    return {name: _load(folder / name, index[name], options, dtype) for name in STORED if index.get(name)}


def load_originals(
    given: Gathered, options: NetworkOptions, kind: str, *, strict: bool, components: Sequence[str] = COMPONENTS
) -> dict[str, Any]:
    """Components of a pipeline from original weights, for a kind of device; tokenizers as given, or the bundled.

    Raises:
        OptionError: the device or the autoencoder does not bear what is asked for.
        WeightsError, KeyMismatchError: as ``supir.weights.plan.make_plan``.
    """
    dtype, overflows = choose_dtype(options.dtype, kind), given.traits.force_upcast is not False
    coder = choose_vae_dtype(options.vae_dtype, dtype, kind, overflows=overflows)
    found, _ = load_gathered(
        given,
        components=components,
        dtype={"default": dtype, "autoencoder": coder},
        strict=strict,
        stored={} if options.quantize == "none" else dict.fromkeys(STORED, options.quantize),
    )
    donor = given.tokenizers or BUNDLED_MODEL
    tokenizers = {name: CLIPTokenizer.from_pretrained(donor / name) for name in ("tokenizer", "tokenizer_2")}
    return found | tokenizers


def _load(folder: Path, entry: list[str], options: NetworkOptions, dtype: torch.dtype) -> nn.Module:
    files = sorted(folder.glob(f"{_STEM}*.safetensors"))
    if not files:
        raise WeightsError(f"{folder} has no {_STEM}.safetensors; make the folder again with 'supir convert'")
    kind: Any = getattr(import_module(entry[0]), entry[1])
    with torch.device("meta"):
        network: nn.Module = kind.from_config(kind.load_config(folder))
    network = nn.Module.to(network.eval(), dtype)
    wanted = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
    source = Merged([open_checkpoint(file) for file in files])
    report = KeyReport(
        num_tensors=len(wanted.keys() & source.shapes.keys()),
        missing=tuple(name for name in wanted if name not in source.shapes),
        unexpected=(),  # diffusers passes over what it does not know, and so do we
        mis_shaped=tuple(
            f"{name} {source.shapes[name]}, the model has {shape}"
            for name, shape in wanted.items()
            if source.shapes.get(name, shape) != shape
        ),
    )
    if not report.ok:
        raise KeyMismatchError(
            f"{folder}: {report.summary()}\nIts files belong to another configuration or version; make the folder "
            "again with 'supir convert'."
        )
    quantize_weights(network, options.quantize)
    for name in wanted:
        fill(network, name, source.tensor(name), dtype)
    return network


def how_they_run(components: Mapping[str, Any], options: NetworkOptions, kind: str) -> dict[str, str]:
    """What of the loaded networks, beside their weights, makes another result: as they are now, for records.

    A missing UNet leaves the autoencoder to tell the arithmetic. ``kind`` is that of the device that they run on.
    """
    unet = components.get("unet")
    network = components["autoencoder"] if unet is None else unet
    coder = components.get("autoencoder", network)
    found = options.identity(*(str(each).removeprefix("torch.") for each in (network.dtype, kind, coder.dtype)))
    libraries = {
        str(getattr(config, "quant_method", config))
        for config in (getattr(components.get(name), "config", {}).get("quantization_config") for name in STORED)
        if config is not None
    }
    if libraries:
        found["quantized_by"] = ", ".join(sorted(libraries))
    return found


def arrange(components: Mapping[str, Any], options: NetworkOptions, kind: str) -> None:
    """Lay out the loaded networks as they run fastest on a kind of device, and compile them where that is asked for."""
    for network in (components.get(name) for name in (*STORED, "autoencoder")):
        # Measured by `make bench`: in 16 bits convolutions are up to twice as fast so, in float32 slower. On processors
        # alone: CUDA's group norms would turn everything back, and Apple's GPUs have computed wrongly so.
        if kind == "cpu" and network is not None and network.dtype is not torch.float32:
            network.to(memory_format=torch.channels_last)
    if options.compile:
        for network in filter(None, map(components.get, STORED)):
            network.compile_repeated_blocks()


def check_compiler(kind: str = "cpu") -> None:
    """Refuse to compile where the compiler is missing, before an hour of work fails for it.

    ``kind`` is that of the device; compilers for accelerators come with torch.
    """
    compiler = os.environ.get("CXX")
    if kind == "cpu" and not any(map(shutil.which, [compiler] if compiler else ["g++", "clang++", "cl"])):
        raise OptionError(
            f"compile is on, which needs a C++ compiler, and {compiler or 'g++ or clang++'} is not installed; install"
            " one, name one in the environment variable CXX, or leave compile off"
        )
