"""Regions in the sampling: dials that differ over the latent, and several prompts, each where it is meant.

The strengths of text guidance, connectors and restoration guidance become maps; prompts are answered each by itself,
and the answers mixed as those of tiles are; what ``detail`` does in the encoder is mixed in the LQ latent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from supir.options import RestoreOptions
from supir.options.regions import options_in, prompts_of_regions, split_regions
from supir.restoration.denoiser_network import Conditions
from supir.sampling.denoiser import Ramp, by_place
from supir.tensors.tiling import Layout


@dataclass(frozen=True, kw_only=True)
class Places:
    """The regions of a picture that have dials of their own."""

    shares: Tensor
    """(R, h, w), how much of each latent pixel each has; the rest is nobody's."""
    options: RestoreOptions
    """Of the rest."""
    own_ends: bool
    """Whether the encoder has both ends of ``detail``."""

    @cached_property
    def inside(self) -> list[RestoreOptions]:
        """What acts in each."""
        regions = [each for each in split_regions(self.options.region) if each.dials]
        return [options_in(self.options, each, own_ends=self.own_ends) for each in regions]

    def strength(self, of: Callable[[RestoreOptions], Ramp], places: Tensor | None = None) -> Ramp:
        """A strength by place, of what the options say for each; ``places`` are those of a tile."""
        shares = self.shares[None] if places is None else places
        return by_place([of(self.options), *map(of, self.inside)], shares)

    def detailed(self, encode: Callable[[float | None], Tensor]) -> Tensor:
        """The LQ latent (B, C, h, w), with the ``detail`` of each region where the encoder has both ends."""
        found = encode(self.options.detail)
        others = {each.detail for each in self.inside if self.own_ends} - {self.options.detail}
        for detail in others:
            share = sum(share for share, each in zip(self.shares, self.inside, strict=True) if each.detail == detail)
            found = found + torch.as_tensor(share).to(found) * (encode(detail) - found)
        return found

    @cached_property
    def worded(self) -> Tensor | None:
        """(P, h, w), how much of each latent pixel each prompt has, the plain one first; None where it is alone."""
        prompts, numbers = prompts_of_regions(self.options)
        if not prompts:
            return None
        found = self.shares.new_zeros(1 + len(prompts), *self.shares.shape[-2:])
        for number, share in zip(numbers, self.shares, strict=True):
            found[number] += share
        found[0] += (1 - self.shares.sum(0)).clamp(min=0)
        return found

    def present(self, layout: Layout, batch: int) -> list[Tensor]:
        """Of each tile which prompts are there, (B, P); none where no region has words.

        Asked while the shares lie on the processor, so that nobody waits for a device.
        """
        if self.worded is None:
            return []
        rows, columns = layout(self.worded.shape[-2], self.worded.shape[-1], Fraction(1))
        parts = [self.worded[:, row.start : row.stop, column.start : column.stop] for row in rows for column in columns]
        return [(part.amax((-2, -1)) > 0).expand(batch, -1) for part in parts]


def with_places(
    positive: dict[str, Any],
    negative: dict[str, Any],
    places: Places,
    present: Sequence[Tensor],
    conditions: Conditions,
) -> None:
    """Put into the conditions of both branches what the regions are; the negative words are the same everywhere.

    ``present`` is what ``Places.present`` says.
    """
    batch = len(positive["control"])
    positive["places"] = negative["places"] = places.shares.expand(batch, -1, -1, -1)
    if places.worded is None or not conditions.placed_tokens:
        return
    positive["worded"] = places.worded.expand(batch, -1, -1, -1)
    positive["present"] = list(present)
    first = torch.arange(len(places.worded)).eq(0)
    negative["present"] = [first.expand(batch, -1) for _ in positive["present"]]
    negative["worded"] = first.to(positive["worded"]).view(1, -1, 1, 1).expand_as(positive["worded"])
    for number, (tokens, vector) in enumerate(zip(conditions.placed_tokens, conditions.placed_vectors, strict=True), 1):
        positive |= {f"tokens.{number}": tokens, f"vector.{number}": vector}
        negative |= {f"tokens.{number}": tokens, f"vector.{number}": vector}


def number_of_calls(present: Sequence[Tensor], tile_batch: int) -> int:
    """How often the networks are asked for all tiles, with each prompt that is there."""
    return sum(
        int(torch.cat([*present[start : start + tile_batch]]).any(0).sum())
        for start in range(0, len(present), tile_batch)
    )
