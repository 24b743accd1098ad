"""The optimiser of a run: AdamW, with its moments in float32 or, where torchao is installed, in 8 bits."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from supir.errors import MissingExtraError

BETAS = (0.9, 0.99)


def make_optimiser(
    named: Mapping[str, nn.Parameter], pace: Mapping[str, float], kind: str, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimiser, ``adamw`` or ``adamw8bit``, of the parameters (by ``component.name``) that have a gradient.

    Its groups carry ``pace``, their rate over the run's by component, 1 where none is named. Weights decay in matrices
    and filters; biases and norms do not.

    Raises:
        MissingExtraError: ``adamw8bit`` without torchao.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((pace.get(name.split(".")[0], 1.0), decay), []).append(parameter)
    found: list[dict[str, Any]] = [
        {"params": members, "pace": rate, "weight_decay": decay} for (rate, decay), members in groups.items()
    ]
    if kind == "adamw":
        return torch.optim.AdamW(found, lr=learning_rate, betas=BETAS)
    try:
        eight_bit = importlib.import_module("torchao.optim").AdamW8bit
    except ImportError:
        raise MissingExtraError("torchao", "quantize", "the 8-bit optimiser") from None
    made: torch.optim.Optimizer = eight_bit(found, lr=learning_rate, betas=BETAS)
    return made


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Set the learning rate of a group; torchao's optimisers hold it in a tensor, which they are compiled around."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
