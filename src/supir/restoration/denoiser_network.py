"""Words for the networks, embedded once a restoration, and one evaluation of the two, adaptor and UNet, with what of
earlier steps may be taken again.

A row is one sample of one tile in one branch of text guidance; where something is kept, the condition names its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from supir.options import RestoreOptions
from supir.options.regions import prompts_of_regions
from supir.prompts import whole_prompts
from supir.sampling.feature_cache import StepCache
from supir.tensors.tiling import Layout

if TYPE_CHECKING:  # a plan needs none of the networks
    from supir.models.adaptor import SupirAdaptor
    from supir.models.text import TextTowers
    from supir.models.unet import SupirUNet

SIZE_IDS = (1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0)
"""Original size, crop and target size told to SDXL, whatever the picture's (reference section 4)."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the words say to the networks: text tokens (B, tokens, features) and condition vectors (B, features).

    Lists hold one for each tile, row by row; those of ``placed_`` one for each prompt of regions.
    """

    tokens: Tensor | list[Tensor]
    vector: Tensor | list[Tensor]
    negative_tokens: Tensor
    negative_vector: Tensor
    placed_tokens: list[Tensor] = field(default_factory=list)
    placed_vectors: list[Tensor] = field(default_factory=list)

    def to(self, device: torch.device) -> Conditions:
        """The same on a device."""
        moved: dict[str, Any] = {
            name: value.to(device) if isinstance(value, Tensor) else [each.to(device) for each in value]
            for name, value in vars(self).items()
        }
        return Conditions(**moved)


def embed(towers: TextTowers, options: RestoreOptions, batch: int, size_width: int) -> Conditions:
    """Embed the prompt, or one a tile, those of regions, with their quality words, and the negative prompt; once for
    the whole batch.

    ``size_width`` are the features that each of ``SIZE_IDS`` becomes.
    """
    from supir.models.unet import condition_vector

    positive, negative = whole_prompts(options)
    placed, _ = prompts_of_regions(options)
    text = towers.encode(
        [*positive, *placed, negative], long_prompt=options.long_prompt, weighted=options.prompt_weights
    )
    sizes = torch.tensor([SIZE_IDS] * len(text.pooled), device=text.pooled.device)
    vector = condition_vector({"text_embeds": text.pooled, "time_ids": sizes}, size_width)
    tokens = [each.expand(batch, -1, -1) for each in text.tokens[:, None]]
    vectors = [each.expand(batch, -1) for each in vector[:, None]]
    own = len(positive)
    return Conditions(
        tokens=tokens[:own] if options.tile_prompts else tokens[0],
        vector=vectors[:own] if options.tile_prompts else vectors[0],
        negative_tokens=tokens[-1],
        negative_vector=vectors[-1],
        placed_tokens=tokens[own:-1],
        placed_vectors=vectors[own:-1],
    )


CACHE_KEYS = "rows"
"""The entry of a condition that names the rows: a (B,) tensor of integers per tile, none of them twice."""


@dataclass(frozen=True, kw_only=True)
class GuidedNetwork:
    """The function that ``discrete_denoiser`` takes: calls adaptor and UNet, or as little of them as is needed.

    Deep features are those of ``SupirUNet.forward``. Where they are kept, the blocks that make them are not run, and of
    the adaptor only what the rest still reads.
    """

    unet: SupirUNet
    adaptor: SupirAdaptor
    control_scales: Sequence[Callable[[Tensor], Tensor]]
    """Strengths of the connectors (B,) for the solver's levels (B,), of each answer. Where one is 0 the adaptor is not
    run.
    """
    control_kept: StepCache = field(default_factory=lambda: StepCache(1))
    """Features of the adaptor: all, or after a step of kept deep features those that it read."""
    deep_kept: StepCache = field(default_factory=lambda: StepCache(1))

    def __call__(self, x: Tensor, timestep: Tensor, sigma: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The prediction (B, C, h, w), float32, for ``x`` scaled by c_in.

        ``condition`` holds ``tokens`` (B, tokens, features), ``vector`` (B, features), ``control``, the LQ latent, in
        the shape of ``x``, ``rows`` where a cache is in use, and ``answer`` where there are several: which it is,
        for all rows one.
        """
        kind = self.unet.dtype
        x, tokens, hint = x.to(kind), condition["tokens"].to(kind), condition["control"].to(kind)
        vector = {"vector": condition["vector"].to(kind)}
        rows = condition[CACHE_KEYS].tolist() if CACHE_KEYS in condition else []
        deep = self.deep_kept.get(rows)
        answer = int(condition["answer"][0]) if "answer" in condition else 0
        scale = one_number(self.control_scales[answer](sigma))
        control = [] if isinstance(scale, float) and scale == 0 else self.control_kept.get(rows)
        num_outer = len(self.unet.up_blocks[-1].resnets)
        if control is None or (deep is None and len(control) == num_outer):
            control = self.adaptor(x, timestep, tokens, vector, hint, outer_only=deep is not None)
            self.control_kept.put(rows, control)
        found = self.unet(
            x,
            timestep,
            tokens,
            added_cond_kwargs=vector,
            control=control,
            control_scale=scale,
            deep=None if deep is None else deep[0],
        )
        if deep is None:
            self.deep_kept.put(rows, [found.deep])
        prediction: Tensor = found.sample
        return prediction.float()


def one_number(values: Tensor) -> float | Tensor:
    """What all of (B,) are, where they lie on the processor and are alike: networks do less for numbers they know."""
    if values.ndim > 1:
        return values
    if values.device.type == "cpu" and bool((values == values[0]).all()):
        return float(values[0])
    return values


def cache_keys(latent: Tensor, layout: Layout) -> tuple[list[Tensor], list[Tensor]]:
    """Names for the rows of the negative and the positive branch (see ``CACHE_KEYS``): (B,) integers per tile."""
    down, across = layout(latent.shape[-2], latent.shape[-1], Fraction(1))
    # On the CPU whatever the device: they are keys, and reading them must not wait for a GPU.
    names = torch.arange(2 * len(down) * len(across) * len(latent)).view(2, -1, len(latent))
    return list(names[0]), list(names[1])
