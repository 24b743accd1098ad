"""What to load instead, where a picture does not fit: the networks in fewer bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from supir.options import NetworkOptions, RestoreOptions
from supir.planner.costs import Costs, networks_of
from supir.planner.plan import GIGABYTE, make_plan
from supir.weights.model_folder import borne_dtypes, read_model_index


def advice(
    folder: Path,
    networks: NetworkOptions,
    dtype: torch.dtype,
    options: RestoreOptions,
    width: int,
    height: int,
    *,
    memory: float,
    accelerator: bool,
) -> str:
    """The first way of loading that fits into the memory, as a sentence; else the smallest.

    Args:
        folder: the model.
        networks: how it was meant to be loaded.
        dtype: what that comes to.
        options: for one picture.
        width: of the working size, in pixels.
        height: likewise.
        memory: bytes that there are.
        accelerator: whether the networks run on a GPU.
    """
    said = ""
    borne = borne_dtypes(folder, read_model_index(folder, "SupirPipeline")) or ("float16", "bfloat16")
    half = "float16" if accelerator and "float16" in borne else "bfloat16"
    for other in _smaller(networks, dtype, accelerator, half):
        costs = Costs(networks_of(folder, other))  # their arithmetic is said, so that the device does not matter
        plan = make_plan(costs, options, width, height, memory=memory, accelerator=accelerator, offload=other.offload)
        flags = f"--dtype {other.dtype}" + (f" --quantize {other.quantize}" if other.quantize != "none" else "")
        if plan.fits:
            return f"{flags} fits: {plan.peak / GIGABYTE:.2f} GB"
        said = f"not even {flags} fits: that takes {plan.peak / GIGABYTE:.2f} GB"
    return said or "the weights are stored as small as they get"


def _smaller(networks: NetworkOptions, dtype: torch.dtype, accelerator: bool, half: str) -> Iterator[NetworkOptions]:
    """Ways to load that take less, the most exact first; ``dtype`` is what the networks have now."""
    slow = not accelerator and not multiplies_bfloat16()  # such a processor gains from 8 bits, but not from 16
    wide = dtype is torch.float32
    if networks.quantize == "none":
        if wide and not slow:
            yield replace(networks, dtype=half)
        exact = half if not wide or not slow else "float32"
        yield replace(networks, dtype=exact, quantize="int8")
    elif wide:
        yield replace(networks, dtype=half)


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16; without them they are very slow."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
