"""Regions in the sampling: dials that differ over the latent, and answers of their own, each where it is meant.

The strengths of text guidance and restoration guidance become maps. Networks see all of what they are given, so a
prompt or a strength of the connectors would be felt beyond its region: such are answered each by itself, and the
answers mixed as those of tiles are. What ``detail`` does in the encoder is mixed in the LQ latent.
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


@dataclass(frozen=True)
class Answer:
    """What the networks are asked for by itself, for one region or several."""

    prompt: int
    """Which of the prompts of regions, from 1 on; 0: the plain one."""
    control: tuple[float, float | None]
    """``control_scale`` and ``control_scale_start``."""

    @staticmethod
    def of(options: RestoreOptions, prompt: int) -> Answer:
        """To the options of a region, or of all that is none."""
        return Answer(prompt, (options.control_scale, options.control_scale_start))


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

    @cached_property
    def answers(self) -> list[Answer]:
        """All that the networks are asked for, that of the rest first."""
        return list(dict.fromkeys([Answer.of(self.options, 0), *self._own]))

    @cached_property
    def _own(self) -> list[Answer]:
        """That of each region."""
        _, prompts = prompts_of_regions(self.options)
        return [Answer.of(here, prompt) for here, prompt in zip(self.inside, prompts, strict=True)]

    @cached_property
    def unworded(self) -> list[int]:
        """For each answer that which stands for it under the negative words, which are the same everywhere."""
        plain = self.answers[0].control
        return [0 if answer.control == plain else number for number, answer in enumerate(self.answers)]

    def strength(self, of: Callable[[RestoreOptions], Ramp]) -> Ramp:
        """A strength by place, of what the options say for each."""
        return by_place([of(self.options), *map(of, self.inside)], self.shares[None])

    def detailed(self, encode: Callable[[float | None], Tensor]) -> Tensor:
        """The LQ latent (B, C, h, w), with the ``detail`` of each region where the encoder has both ends."""
        found = encode(self.options.detail)
        others = {each.detail for each in self.inside if self.own_ends} - {self.options.detail}
        for detail in others:
            share = sum(share for share, each in zip(self.shares, self.inside, strict=True) if each.detail == detail)
            found = found + torch.as_tensor(share).to(found) * (encode(detail) - found)
        return found

    @cached_property
    def answered(self) -> Tensor | None:
        """(A, h, w), how much of each latent pixel each answer has; None where there is one alone."""
        if len(self.answers) == 1:
            return None
        found = self.shares.new_zeros(len(self.answers), *self.shares.shape[-2:])
        for answer, share in zip(self._own, self.shares, strict=True):
            found[self.answers.index(answer)] += share
        found[0] += (1 - self.shares.sum(0)).clamp(min=0)
        return found

    def present(self, layout: Layout, batch: int) -> list[Tensor]:
        """Of each tile which answers are there, (B, A); none where there is one alone.

        Asked while the shares lie on the processor, so that nobody waits for a device.
        """
        if self.answered is None:
            return []
        rows, columns = layout(self.answered.shape[-2], self.answered.shape[-1], Fraction(1))
        parts = [
            self.answered[:, row.start : row.stop, column.start : column.stop] for row in rows for column in columns
        ]
        return [(part.amax((-2, -1)) > 0).expand(batch, -1) for part in parts]

    def without_words(self, answered: Tensor) -> Tensor:
        """Along the axis of answers (..., A), under the negative words: what those have that another stands for is
        its own.
        """
        found = torch.zeros_like(answered)
        for number, standing in enumerate(self.unworded):
            found[..., standing] += answered[..., number]
        return found


def with_places(
    positive: dict[str, Any],
    negative: dict[str, Any],
    places: Places,
    present: Sequence[Tensor],
    conditions: Conditions,
) -> None:
    """Put into the conditions of both branches what the answers are, where there are several.

    ``present`` is what ``Places.present`` says.
    """
    if places.answered is None:
        return
    batch = len(positive["control"])
    positive["answered"] = places.answered.expand(batch, -1, -1, -1)
    positive["present"] = list(present)
    negative["answered"] = places.without_words(positive["answered"].movedim(1, -1)).movedim(-1, 1)
    negative["present"] = [places.without_words(each) for each in positive["present"]]
    for number, answer in enumerate(places.answers):
        if answer.prompt and conditions.placed_tokens:
            own = {"tokens": conditions.placed_tokens, "vector": conditions.placed_vectors}
            for name, values in own.items():
                positive[f"{name}.{number}"], negative[f"{name}.{number}"] = values[answer.prompt - 1], negative[name]


def number_of_calls(present: Sequence[Tensor], tile_batch: int) -> int:
    """How often the networks are asked for all tiles, for each answer that is there."""
    return sum(
        int(torch.cat([*present[start : start + tile_batch]]).any(0).sum())
        for start in range(0, len(present), tile_batch)
    )
