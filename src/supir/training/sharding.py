"""Many processes: the accelerator of a run, and FSDP's shards of its parameters.

The shards are those of FSDP2, through accelerate. Where they lie, the networks of a stage run inside a pass through its
``Learner`` alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from supir.weights.device import best_device

WRAPPED = ("BasicTransformerBlock", "ResnetBlock2D", "CLIPEncoderLayer")
"""Classes gathered, used and freed as one: nearly all parameters of UNet, adaptor and text towers lie in them."""


def make_accelerator(
    *, mixed_precision: str = "no", accumulation: int = 1, unused: bool = True, cpu: bool = False
) -> Accelerator:
    """The accelerator of a run: one processor, one GPU, or what ``accelerate launch`` or ``torchrun`` started.

    FSDP is taken where accelerate's own switch says so (``accelerate launch --use_fsdp``).
    ``unused`` says that a pass may leave parameters out: a text tower's last layer, an adaptor. ``cpu`` keeps to the
    processor where there is more.
    """
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true")
    plugin = fsdp_plugin() if sharded else None
    kind = "cpu" if cpu else best_device()
    with _one_device(kind):
        accelerator = Accelerator(
            cpu=kind == "cpu",
            mixed_precision=mixed_precision,
            gradient_accumulation_steps=accumulation,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
            fsdp_plugin=plugin,
        )
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate takes up FSDP on devices of their own alone; torch shards on processors too, and so do its parts.
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    return accelerator


@contextmanager
def _one_device(kind: str) -> Iterator[None]:
    """Let accelerate take this kind of device for a single process: by itself it knows some and overlooks others."""
    name = "ACCELERATE_TORCH_DEVICE"
    if kind == "cpu" or name in os.environ or "LOCAL_RANK" in os.environ:  # several processes have a device each
        yield
        return
    os.environ[name] = kind
    try:
        yield
    finally:
        del os.environ[name]


def fsdp_plugin() -> FullyShardedDataParallelPlugin:
    """Every block its own shard, gathered for its forward and again for its backward pass (ZeRO-3).

    Parameters are gathered in the type they are held in, and the arithmetic is autocast's, as in one process.
    """
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=True,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=list(WRAPPED),
        state_dict_type="FULL_STATE_DICT",
        mixed_precision_policy=MixedPrecisionPolicy(),
        # accelerate launch would have it on: then transformers leaves what it loads empty in all processes but one,
        # and what does not learn here (the text towers) is never sent to the others.
        cpu_ram_efficient_loading=False,
    )


def prepared(accelerator: Accelerator, learner: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[Any, Any]:
    """Both as accelerate wants them; under FSDP, sharded by those of ``WRAPPED`` that this stage has."""
    if accelerator.is_fsdp2:
        present = {type(module).__name__ for module in learner.modules()}
        names = [name for name in WRAPPED if name in present]
        accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = names
    first, second = accelerator.prepare(learner, optimiser)
    return first, second


def resharded(learner: Any) -> None:
    """After a pass without gradient: give back what it gathered, which else is taken for current in the next pass."""
    if hasattr(learner, "reshard"):
        learner.reshard()


def first_says(accelerator: Accelerator, number: int) -> int:
    """The whole number that the first process has, in every process; all must ask together."""
    if accelerator.num_processes == 1:
        return int(number)
    told = torch.tensor([int(number)], dtype=torch.int64, device=accelerator.device)
    torch.distributed.broadcast(told, src=0)
    return int(told)


def gathered(value: Any) -> Any:
    """The same nest of dictionaries and lists, every sharded tensor whole. All processes must call it together."""
    return tree_map_only(DTensor, lambda shards: shards.full_tensor(), value)


def spread(whole: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of another, sharded as that one is."""
    whole = whole.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements) if isinstance(like, DTensor) else whole
