"""Adaptor and connectors beside the frozen prior: the paper's main stage (sections 3.1, 3.2, 4.1).

The hint is the frozen E_dr's latent of the degraded picture; the loss is that of ``denoising``. Captions are dropped at
the stated rate, negative-quality samples mixed in at another.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from supir.models.adaptor import SupirAdaptor
from supir.models.connectors import zeroed
from supir.prompts import POSITIVE_PROMPT, join_prompt
from supir.training.denoising import Denoising, make_draw
from supir.training.loop import Stage
from supir.training.sizes import Networks, half
from supir.training.stage_context import StageContext

SHEET_SIGMA = 3.0
"""The sheet's pictures begin with E_dr's latent noised to this level, which hides what it does not know."""
SHEET_STEPS = 8
_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.")


def is_prior(name: str) -> bool:
    """Whether a parameter ``component.name`` is of the frozen prior: the UNet's but for its connectors."""
    return name.startswith("unet.") and not name.startswith("unet.connectors.")


def adaptor_stage(materials: StageContext) -> Stage:
    """The stage: adaptor and connectors learn, everything else is frozen."""
    networks, options = materials.networks, materials.options
    unet, adaptor = networks["unet"], networks["adaptor"]
    if options.copy_start:
        start_from_prior(unet, adaptor)
    denoising = Denoising(materials, controlled=True)
    return Stage(
        "adaptor",
        {"unet": unet, "adaptor": adaptor},
        denoising.loss,
        materials.sheet(lambda: restored(denoising), denoising.heldout_loss),
        frozen=is_prior,
        draw=make_draw(materials),
        batch=options.batch,
    )


def restored(denoising: Denoising) -> dict[str, Tensor]:
    """The held-out pictures degraded, through E_dr alone, and restored under the quality words."""
    heldout = denoising.materials.heldout
    hint = denoising.latent(heldout.degraded, degraded=True)
    prompts = [join_prompt(caption, POSITIVE_PROMPT) for caption in heldout.captions]
    found = denoising.sample(prompts, start=hint, hint=hint, sigma=SHEET_SIGMA, num_steps=SHEET_STEPS)
    return {
        "degraded": heldout.degraded,
        "preview": denoising.picture(hint),
        "result": denoising.picture(found),
    }


def with_half_trunk(networks: Networks) -> Networks:
    """The networks with the paper's trim of the adaptor: half of the UNet's transformer blocks in each block.

    They are blocks of the adaptor that was there, spread evenly over its own.
    """
    unet, adaptor = networks["unet"], networks["adaptor"]
    whole = unet.config.transformer_layers_per_block
    depths = half([whole] * len(unet.config.block_out_channels) if isinstance(whole, int) else whole)
    if tuple(adaptor.config.transformer_layers_per_block) == depths:
        return networks
    trimmed = SupirAdaptor.from_config({**adaptor.config, "transformer_layers_per_block": depths})
    _copy_spread(adaptor, trimmed)
    return networks | {"adaptor": trimmed}


def start_from_prior(unet: Any, adaptor: Any) -> None:
    """Begin the adaptor as a copy of the UNet's encoder, and hint and connectors as the paper's zeros.

    Of a trimmed trunk's transformer blocks each takes the weights of one spread evenly over the UNet's.
    """
    _copy_spread(unet, adaptor)
    zeroed(adaptor.hint_conv)
    for name, parameter in unet.connectors.named_parameters():
        if ".zero_" in name or ".to_out." in name:
            nn.init.zeros_(parameter)


@torch.no_grad()
def _copy_spread(source: nn.Module, target: nn.Module) -> None:
    """Copy what has a place in both; of other numbers of transformer blocks, those spread evenly over the source's."""
    known, theirs, mine = source.state_dict(), _depths(source), _depths(target)
    for name, parameter in target.named_parameters():
        there = name
        if found := _BLOCK.search(name):
            place = name[: found.start()]
            block = int(found[1]) * theirs[place] // mine[place]
            there = f"{place}transformer_blocks.{block}.{name[found.end() :]}"
        if there in known and known[there].shape == parameter.shape:
            parameter.copy_(known[there])


def _depths(trunk: nn.Module) -> dict[str, int]:
    """Number of transformer blocks by the name before ``transformer_blocks``."""
    found: dict[str, int] = {}
    for name, _ in trunk.named_parameters():
        if match := _BLOCK.search(name):
            place = name[: match.start()]
            found[place] = max(found.get(place, 0), int(match[1]) + 1)
    return found
