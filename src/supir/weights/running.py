"""How the networks of a model folder are loaded and run: their dtype, 8-bit storage, layout of memory, compiling."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPTokenizer

from supir.errors import KeyMismatchError, OptionError, WeightsError
from supir.models.stored import store_in_eight_bits
from supir.options import NetworkOptions
from supir.weights.checkpoint import Merged, open_checkpoint
from supir.weights.folder import BUNDLED_MODEL
from supir.weights.gather import Gathered
from supir.weights.load import fill, load_gathered
from supir.weights.report import KeyReport

STORED = ("unet", "adaptor")
"""The components that every step runs, nearly all of the weights; the others stay as they are."""
_STEM = "diffusion_pytorch_model"


def dtype_of(options: NetworkOptions) -> torch.dtype:
    """What the networks calculate in; ``auto`` is float16 where an accelerator is, else float32.

    A processor that multiplies bfloat16 faster does not change that by itself: a result shall not depend on it.
    """
    if options.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[options.dtype]
    return torch.float16 if torch.accelerator.is_available() else torch.float32


def autoencoder_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 beside float16, in which SDXL's overflows; else the same as the others."""
    return torch.float32 if dtype is torch.float16 else dtype


def load_stored(folder: Path, index: Mapping[str, Any], options: NetworkOptions) -> dict[str, Any]:
    """The components of a model folder that are stored in 8 bits, each tensor changed as soon as it is read.

    Args:
        folder: in diffusers layout.
        index: of the folder, as ``read_model_index`` gives it.
        options: their ``quantize`` is not ``none``.

    Raises:
        WeightsError: files are missing or damaged.
        KeyMismatchError: the files lack weights, or have them in other shapes.
    """
    return {name: _load(folder / name, index[name], options) for name in STORED if index.get(name)}


def load_originals(given: Gathered, options: NetworkOptions, *, strict: bool) -> dict[str, Any]:
    """All components of a pipeline from original weights, laid out as they run; tokenizers as given, or the bundled.

    Raises:
        OptionError: compiling is asked for, and there is no compiler.
        WeightsError, KeyMismatchError: as ``supir.weights.plan.make_plan``.
    """
    if options.compile:
        check_compiler()
    dtype = dtype_of(options)
    components, _ = load_gathered(
        given,
        dtype={"default": dtype, "autoencoder": autoencoder_dtype(dtype)},
        strict=strict,
        stored={} if options.quantize == "none" else dict.fromkeys(STORED, options.quantize),
    )
    donor = given.tokenizers or BUNDLED_MODEL
    tokenizers = {name: CLIPTokenizer.from_pretrained(donor / name) for name in ("tokenizer", "tokenizer_2")}
    arrange(components, options)
    return components | tokenizers


def _load(folder: Path, entry: list[str], options: NetworkOptions) -> nn.Module:
    files = sorted(folder.glob(f"{_STEM}*.safetensors"))
    if not files:
        raise WeightsError(f"{folder} has no {_STEM}.safetensors; make the folder again with 'supir convert'")
    kind: Any = getattr(import_module(entry[0]), entry[1])
    dtype = dtype_of(options)
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
    store_in_eight_bits(network, options.quantize)
    for name in wanted:
        fill(network, name, source.tensor(name), dtype)
    return network


def arrange(components: Mapping[str, Any], options: NetworkOptions) -> None:
    """Lay out the loaded networks as they run fastest, and compile them where that is asked for.

    Raises:
        OptionError: compiling is asked for, and there is no C++ compiler for the processor's code.
    """
    for network in (components.get(name) for name in (*STORED, "autoencoder")):
        # Measured by `make bench`: in 16 bits convolutions are up to twice as fast so, in float32 slower.
        if network is not None and network.dtype is not torch.float32:
            network.to(memory_format=torch.channels_last)
    if options.compile:
        check_compiler()
        for network in filter(None, map(components.get, STORED)):
            network.compile_repeated_blocks()


def check_compiler() -> None:
    """Refuse to compile where the compiler is missing, before an hour of work fails for it."""
    compiler = os.environ.get("CXX")
    if not torch.accelerator.is_available() and not any(
        map(shutil.which, [compiler] if compiler else ["g++", "clang++", "cl"])
    ):
        raise OptionError(
            f"compile is on, which needs a C++ compiler, and {compiler or 'g++ or clang++'} is not installed; install"
            " one, name one in the environment variable CXX, or leave compile off"
        )
