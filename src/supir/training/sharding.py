"""Many processes: the accelerator of a run, and FSDP's shards of its parameters.

Written for FSDP2 through accelerate, which has it on GPUs only; no run on several GPUs has been made. What a processor
allows is tested: the plugin and its wrapped classes, and the loop over parameters that torch itself has sharded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, FullyShardedDataParallelPlugin
from torch import Tensor

WRAPPED = ("BasicTransformerBlock", "ResnetBlock2D", "CLIPEncoderLayer")
"""Classes gathered, used and freed as one: nearly all parameters of UNet, adaptor and text towers lie in them."""


def make_accelerator(*, mixed_precision: str = "no", accumulation: int = 1, unused: bool = True) -> Accelerator:
    """The accelerator of a run: one processor, one GPU, or what ``accelerate launch`` or ``torchrun`` started.

    FSDP is taken where accelerate's own switch says so (``accelerate launch --use_fsdp``); on processors it has none.
    ``unused`` says that a pass may leave parameters out: a text tower's last layer, an adaptor.
    """
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true")
    return Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=mixed_precision,
        gradient_accumulation_steps=accumulation,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
        fsdp_plugin=fsdp_plugin() if sharded else None,
    )


def fsdp_plugin() -> FullyShardedDataParallelPlugin:
    """Every block its own shard, gathered for its forward and again for its backward pass (ZeRO-3)."""
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=True,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=list(WRAPPED),
        state_dict_type="FULL_STATE_DICT",
    )


def gathered(value: Any) -> Any:
    """The same nest of dictionaries and lists, every sharded tensor whole. All processes must call it together."""
    if isinstance(value, Tensor):
        return value.full_tensor() if hasattr(value, "full_tensor") else value
    if isinstance(value, Mapping):
        return {name: gathered(part) for name, part in value.items()}
    if isinstance(value, list):
        return [gathered(part) for part in value]
    return value


def spread(whole: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of another, sharded as that one is."""
    whole = whole.to(like.device)
    if not hasattr(like, "device_mesh"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, like.device_mesh, like.placements)  # type: ignore[attr-defined]
