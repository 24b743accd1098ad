"""What a restoration will use: the largest tiles that fit, bytes, operations and seconds, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from supir.image import LARGE
from supir.options import RestoreOptions
from supir.planner.costs import Costs
from supir.planner.evaluations import Evaluation, evaluations
from supir.restoration import Restorer, size_multiple
from supir.shrinking import smaller_tiles, smaller_vae_tile
from supir.tiling import Layout

GIGABYTE = 1e9
PROCESS = 7e8
"""Bytes of a process that has imported torch, diffusers and transformers and holds no weights."""
WASTE = 2.0
"""What a pass takes at most over what its tensors hold: scratch of convolutions, pages that the allocator keeps.

Measured on a processor for the bundled model: 1.3 to 2."""
PICTURES = 4
"""float32 pictures of the working size that a restoration holds beside its passes: input, preview, result, one more.
Larger ones than ``LARGE`` stay on disk, and the latents take no more than these would up to some 100 megapixels."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was picked, and what it will take."""

    options: RestoreOptions
    """With the tiles that were picked."""
    dtype: str
    offload: bool
    """Whether components go to the GPU one after another."""
    memory: float | None
    """Bytes that were allowed; None where nobody knows."""
    fits: bool
    weights: dict[str, int]
    """Bytes by component."""
    passes: dict[str, int]
    """Bytes at the worst moment of encoding, sampling, decoding, beside weights and pictures."""
    peak: int
    """Bytes of the process, or of the GPU, at the worst moment."""
    operations: int
    evaluations: float
    """In units of one evaluation of both networks, whole, for one branch and all tiles."""
    seconds: float | None
    """None without a rate."""
    reasons: tuple[str, ...]


def make_plan(
    costs: Costs,
    options: RestoreOptions,
    width: int,
    height: int,
    *,
    memory: float | None = None,
    accelerator: bool = False,
    rate: float | None = None,
) -> Plan:
    """Plan one picture.

    Args:
        costs: of the networks.
        options: their tile, tile_batch and vae_tile are the largest that may be picked; their ``memory`` is not read.
        width: of the working size, in pixels; a multiple of ``size_multiple``.
        height: likewise.
        memory: bytes allowed for all; None picks the options' own tiles.
        accelerator: whether the networks run on a GPU, whose memory is meant.
        rate: operations a second; None leaves the time out.
    """
    weights = costs.networks.weights
    base, held = _base(width, height, accelerator), sum(weights.values())
    picked = _picked(_Passes(costs, options, width, height), math.inf if memory is None else memory - base - held)
    offload = accelerator and memory is not None and base + held + picked.peak > memory
    if offload and memory is not None:
        # The adaptor stays beside whichever other component is at work.
        held = weights["adaptor"] + max(size for name, size in weights.items() if name != "adaptor")
        picked = _picked(_Passes(costs, options, width, height), memory - base - held)
    operations, number = picked.operations()
    peak = base + held + picked.peak
    plan = Plan(
        options=picked.options,
        dtype=str(costs.dtype).removeprefix("torch."),
        offload=offload,
        memory=memory,
        fits=memory is None or peak <= memory,
        weights=dict(weights),
        passes=picked.bytes,
        peak=peak,
        operations=operations,
        evaluations=number,
        seconds=None if rate is None else operations / rate,
        reasons=(),
    )
    return Plan(**{**vars(plan), "reasons": tuple(_reasons(plan, picked, options, accelerator, rate))})


def fit(costs: Costs, options: RestoreOptions, width: int, height: int, *, accelerator: bool = False) -> RestoreOptions:
    """The options with tiles that fit into their ``memory``; as they are where that is unset."""
    if options.memory is None:
        return options
    left = options.memory * GIGABYTE - _base(width, height, accelerator) - sum(costs.networks.weights.values())
    return _picked(_Passes(costs, options, width, height), left).options


def _base(width: int, height: int, accelerator: bool) -> int:
    """Bytes of the pictures, and on a processor of the process."""
    return PICTURES * 3 * 4 * min(width * height, LARGE) + (0 if accelerator else int(PROCESS))


class _Passes:
    """What the passes of one picture take with these options."""

    def __init__(self, costs: Costs, options: RestoreOptions, width: int, height: int) -> None:
        self.costs, self.options, self.width, self.height = costs, options, width, height
        parts: Any = costs.networks.components
        self._restorer = Restorer(
            autoencoder=parts["autoencoder"], unet=parts["unet"], adaptor=parts["adaptor"], options=options
        )
        self.factor = self._restorer.latent_factor
        self.latent = height // self.factor, width // self.factor
        self.tiles = _tiles(self._restorer.latent_layout(), *self.latent)
        self.steps = evaluations(options)

    def with_options(self, options: RestoreOptions) -> _Passes:
        return _Passes(self.costs, options, self.width, self.height)

    @property
    def longest(self) -> int:
        """Pixels of the working size's longer side."""
        return max(self.width, self.height)

    @property
    def bytes(self) -> dict[str, int]:
        """At the worst moment of each."""
        return {"encoding": self._coder(True), "sampling": self._sampling(), "decoding": self._coder(False)}

    @property
    def peak(self) -> int:
        return max(self.bytes.values())

    def _sampling(self) -> int:
        number, height, width = self.tiles
        branches = max(step.branches for step in self.steps)
        worst = self.costs.peak_of_evaluation(height, width)
        kept = 0
        if self.options.adaptor_every > 1 or self.options.deep_cache_every > 1:
            control, deep = self.costs.kept(height, width)
            kept = (control if self.options.adaptor_every > 1 else 0) + (
                deep if self.options.deep_cache_every > 1 else 0
            )
        return int(WASTE * worst * branches * min(self.options.tile_batch, number)) + kept * branches * number

    def _coder(self, encoding: bool) -> int:
        _, height, width = self._coder_tiles(encoding)
        return int(WASTE * self.costs.peak_of_coder(height, width, encoding))

    def _coder_tiles(self, encoding: bool) -> tuple[int, int, int]:
        """Number of tiles, and height and width of one in pixels of what goes in."""
        if encoding:
            return _tiles(self._restorer.pixel_layout(1, "degraded_halo"), self.height, self.width)
        return _tiles(self._restorer.pixel_layout(self.factor, "halo"), *self.latent)

    def operations(self) -> tuple[int, float]:
        """Of the whole restoration, and how many whole evaluations of one branch its sampling amounts to."""
        number, height, width = self.tiles
        whole = self.costs.evaluate(1, height, width, False, "whole").operations

        def one(step: Evaluation) -> int:
            return step.branches * self.costs.evaluate(1, height, width, step.unet_outer, step.adaptor).operations

        sampling = sum(times * one(step) for step, times in self.steps.items())
        encoded, *entering = self._coder_tiles(True)
        decoded, *latent = self._coder_tiles(False)
        coded = encoded * sum(self.costs.encode(*entering, degraded).operations for degraded in (True, False))
        coded += 2 * decoded * self.costs.decode(*latent).operations
        return number * sampling + coded, sampling / whole


def _tiles(layout: Layout, height: int, width: int) -> tuple[int, int, int]:
    """Number of tiles, and height and width of the largest."""
    rows, columns = layout(height, width, Fraction(1))
    tall, wide = (max(strip.stop - strip.start for strip in strips) for strips in (rows, columns))
    return len(rows) * len(columns), tall, wide


def _picked(parts: _Passes, left: float) -> _Passes:
    """The passes with the largest tiles that fit into ``left`` bytes; with the smallest where none do."""
    for part, smaller in (("sampling", smaller_tiles), ("encoding", smaller_vae_tile), ("decoding", smaller_vae_tile)):
        for found in _shrinking(parts, smaller):
            if found.bytes[part] < parts.bytes[part]:  # an autoencoder's halo may keep tiles from shrinking
                parts = found
            if parts.bytes[part] <= left:
                break
    return parts


def _shrinking(parts: _Passes, smaller: Callable[[RestoreOptions, int], RestoreOptions | None]) -> Iterator[_Passes]:
    options: RestoreOptions | None = parts.options
    while options is not None:
        yield parts if options == parts.options else parts.with_options(options)
        options = smaller(options, parts.longest)


def _reasons(
    plan: Plan, picked: _Passes, wanted: RestoreOptions, accelerator: bool, rate: float | None
) -> Iterator[str]:
    where = "GPU" if accelerator else "processor"
    number, height, width = picked.tiles
    options = plan.options
    coder, stored = next(picked.costs.networks.components["autoencoder"].parameters()).dtype, picked.costs.stored
    held = "" if stored is None else f"; the weights of UNet and adaptor are stored as {stored}"
    yield f"dtype: {plan.dtype} on a {where}; the autoencoder is {str(coder).removeprefix('torch.')}{held}"
    if accelerator:
        together = "one component at a time (enable_model_cpu_offload), since together they do not fit"
        yield f"offload: {together if plan.offload else 'none, since the components fit together'}"
    for name in ("tile", "tile_batch", "vae_tile"):
        now, asked = getattr(options, name), getattr(wanted, name)
        yield f"{name}: {now}, " + ("as the options say" if now == asked else f"not {asked}, to fit into the memory")
    yield f"tiles: {number} of {width * picked.factor}x{height * picked.factor} px"
    weights = sum(plan.weights.values()) / GIGABYTE
    pictures = _base(picked.width, picked.height, accelerator=True)
    worst = max(plan.passes, key=lambda name: plan.passes[name])
    yield (
        f"memory: {plan.peak / GIGABYTE:.2f} GB: weights {weights:.2f}, pictures {pictures / GIGABYTE:.2f}, {worst} "
        f"{plan.passes[worst] / GIGABYTE:.2f}"
        + ("" if accelerator else f", the process itself {PROCESS / GIGABYTE:.2f}")
    )
    if not plan.fits and plan.memory is not None:
        yield f"does not fit into {plan.memory / GIGABYTE:.2f} GB even so: give more, or a smaller scale or min_size"
    yield f"evaluations: {plan.evaluations:.1f} whole ones of one branch, {plan.operations / 1e12:.2f} TFLOP in all"
    if plan.seconds is not None and rate is not None:
        yield f"time: about {plan.seconds:.0f} s at {rate / 1e9:.0f} GFLOP/s"


def working_multiple(costs: Costs) -> int:
    """What both sides of the working size must be a multiple of."""
    return size_multiple(costs.networks.components["autoencoder"])
