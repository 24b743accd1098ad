"""What a restoration will use: the largest tiles that fit, bytes, operations and seconds, each with its reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supir.image import LARGE, WorkingSize, shares_of, working_size
from supir.options import NetworkOptions, RestoreOptions
from supir.planner.costs import Cost, Costs, Evaluation, evaluations, networks_of, traced
from supir.restoration.backoff import ADVICE, TileBackoff, smaller_vae_tile
from supir.restoration.restorer import Restorer, latent_factor, size_multiple
from supir.restoration.schedules import noise_schedule, number_of_branches
from supir.restoration.work import ANCHOR, DECODING, ENCODING, FIRST, PREVIEW, SAMPLING, WRITING
from supir.tensors.tiling import Layout
from supir.weights.first import First, first_file, open_first
from supir.weights.first import layout as first_layout
from supir.weights.model_folder import borne_dtypes, read_model_index

GIGABYTE = 1e9
PROCESS = 7e8
"""Bytes of a process that has imported torch, diffusers and transformers and holds no weights."""
WASTE = 2.0
"""What a pass takes at most over what its tensors hold: scratch of convolutions, pages that the allocator keeps.

Measured on a processor for the bundled model: 1.3 to 2."""
OFFLOADED = {
    "none": "all components are on the GPU",
    "model": "one component at a time is on the GPU, UNet and adaptor together",
    "sequential": "one layer at a time is on the GPU, which is slow",
    "group": "one layer at a time is on the GPU, the next on its way, which is slow",
}
"""What is on the GPU, by the way to offload."""
PICTURES = 4
"""float32 pictures of the working size that a restoration holds beside its passes: input, preview, result, one more.
Larger ones than ``LARGE`` stay on disk, and the latents take no more than these would up to some 100 megapixels."""


ENLARGED = 3
"""float32 pictures that the model that acts first holds of what it makes."""
WRITTEN = 5e3
"""What a pixel takes to be finished and written, in operations of the networks."""
AUTOMATIC = ("none", "model", "group")
"""Ways to offload that are tried where none is named, the fastest first."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was picked, and what it will take."""

    options: RestoreOptions
    """With the tiles that were picked."""
    together: bool
    """Whether both branches of text guidance go through the networks in one call."""
    dtype: str
    offload: str
    """What goes to the GPU and comes back, as in ``NetworkOptions``; never ``auto``."""
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


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What of the photo, beside its working size, decides how much there is to do."""

    shares: Tensor | None = None
    """(R, h, w), how much of each latent pixel the regions with dials have."""
    first: First | None = None
    """The model that acts before, where one is asked for."""
    photo: tuple[int, int] | None = None
    """(width, height) of the photo, where that model enlarges it; None: it need not, or has."""
    enlargement: float | None = None
    """As ``Restorer.enlargement``."""


def extras_on(
    costs: Costs, options: RestoreOptions, width: int, height: int, first_models: Path | None = None
) -> Extras:
    """Of a picture of ``width`` x ``height`` pixels; the file of the model that acts first is read.

    Raises:
        OptionError: a mask of a region is no picture, or has another shape.
        MissingExtraError, UnsafeCheckpointError, WeightsError: as ``first_file`` and ``open_first``.
    """
    size, coder = size_on(costs, options, width, height), costs.networks.components["autoencoder"]
    covered, padded = (size.height, size.width), (size.padded_height, size.padded_width)
    enlarged = bool(options.first) and size.height > height
    return Extras(
        shares=shares_of(options, width, height, covered, padded, latent_factor(coder)),
        first=open_first(first_file(options.first, first_models)) if options.first else None,
        photo=(width, height) if enlarged else None,
        enlargement=math.inf if enlarged else size.height / height,
    )


def size_on(costs: Costs, options: RestoreOptions, width: int, height: int) -> WorkingSize:
    """The sizes of a picture of ``width`` x ``height`` pixels on its way through these networks."""
    multiple = size_multiple(costs.networks.components["autoencoder"])
    return working_size(width, height, options.scale, options.min_size, multiple)


def work_on(
    costs: Costs, options: RestoreOptions, width: int, height: int, first_models: Path | None = None
) -> dict[str, float]:
    """The operations of each part of a picture's restoration, its writing included, by the names of ``work``.

    The arguments are those of ``extras_on``, which may raise.
    """
    size = size_on(costs, options, width, height)
    extras = extras_on(costs, options, width, height, first_models)
    passes = Passes(costs, options, size.padded_width, size.padded_height, extras=extras)
    return passes.parts | {WRITING: WRITTEN * size.output_width * size.output_height}


def make_plan(
    costs: Costs,
    options: RestoreOptions,
    width: int,
    height: int,
    *,
    memory: float | None = None,
    accelerator: bool = False,
    offload: str = "auto",
    rate: float | None = None,
    extras: Extras | None = None,
) -> Plan:
    """Plan one picture, as ``picked`` does, and say what it costs and why.

    Args:
        costs: of the networks.
        options: their tile, tile_batch and vae_tile are the largest that may be picked; their ``memory`` is not read.
        width, height: of the working size, in pixels; multiples of ``size_multiple``.
        memory: bytes allowed for all; None picks the options' own tiles.
        accelerator: whether the networks run on a GPU, whose memory is meant.
        offload: as in ``NetworkOptions``.
        rate: operations a second; None leaves the time out.
        extras: regions, and who acts first; None: neither.
    """
    where: dict[str, Any] = {"memory": memory, "accelerator": accelerator, "extras": extras}
    chosen = picked(costs, options, width, height, **where, offload=offload)
    operations, number = chosen.operations()
    plan = Plan(
        options=chosen.options,
        together=chosen.together,
        dtype=str(costs.dtype).removeprefix("torch."),
        offload=chosen.offload,
        memory=memory,
        fits=memory is None or chosen.peak <= memory,
        weights=dict(costs.networks.weights),
        passes=chosen.bytes,
        peak=chosen.peak,
        operations=operations,
        evaluations=number,
        seconds=None if rate is None else operations / rate,
        reasons=(),
    )
    return replace(plan, reasons=tuple(_reasons(plan, chosen, options, accelerator, rate)))


def picked(
    costs: Costs,
    options: RestoreOptions,
    width: int,
    height: int,
    *,
    memory: float | None,
    accelerator: bool,
    offload: str = "auto",
    extras: Extras | None = None,
) -> Passes:
    """The passes that restore a picture: in which tiles, and what is offloaded meanwhile. The arguments are
    ``make_plan``'s.

    Tiles for sampling as large as they were asked for go before having all weights on the device, and that goes before
    the slow ways to offload. No tile is below ``supir.restoration.backoff.smallest_tile``:
    where not even those fit, what takes least comes back.
    """
    ways = AUTOMATIC if offload == "auto" else (offload,)
    if not accelerator:
        ways = ("none",)
    asked = [Passes(costs, options, width, height, accelerator=accelerator, offload=way, extras=extras) for way in ways]
    if memory is None:
        return asked[0]
    found = []
    for passes in asked:
        found.append(_picked(passes, memory))
        if found[-1].peak <= memory and found[-1].options.tile == options.tile:
            break
    fitting = [passes for passes in found if passes.peak <= memory]
    whole = [passes for passes in fitting if passes.options.tile == options.tile and passes.offload in AUTOMATIC[:2]]
    return (whole or fitting or sorted(found, key=lambda passes: passes.peak))[0]


def _base(width: int, height: int, accelerator: bool) -> int:
    """Bytes of the pictures, and on a processor of the process."""
    return PICTURES * 3 * 4 * min(width * height, LARGE) + (0 if accelerator else int(PROCESS))


class Passes:
    """What the passes of one picture take with these options and their tiles.

    ``width`` and ``height`` are those of the working size; ``together``: both branches of text guidance in one call.
    The others are ``make_plan``'s.
    """

    def __init__(
        self,
        costs: Costs,
        options: RestoreOptions,
        width: int,
        height: int,
        *,
        accelerator: bool = False,
        offload: str = "none",
        together: bool = True,
        extras: Extras | None = None,
    ) -> None:
        self.extras = extras or Extras()
        self.costs, self.options, self.width, self.height = costs, options, width, height
        self.accelerator, self.offload, self.together = accelerator, offload, together
        parts: Any = costs.networks.components
        self._restorer = Restorer(
            autoencoder=parts["autoencoder"],
            unet=parts.get("unet"),
            adaptor=parts.get("adaptor"),
            options=options,
            shares=self.extras.shares,
            enlargement=self.extras.enlargement,
        )
        self._samples = parts.get("unet") is not None
        self.factor = self._restorer.latent_factor
        self.latent = height // self.factor, width // self.factor
        self.tiles = _tiles(self._restorer.latent_layout(), *self.latent)

    @cached_property
    def steps(self) -> Counter[Evaluation]:
        """Which parts of the networks the steps run."""
        return evaluations(self.options)

    @cached_property
    def branches(self) -> int:
        """Of text guidance, at most, in one step."""
        return number_of_branches(self.options, noise_schedule(self.options))

    def apart(self, branches: int) -> int:
        """Evaluations of one branch and one tile that regions add to each step of so many branches."""
        return sum(self._apart[:branches])

    @cached_property
    def _apart(self) -> tuple[int, int]:
        """Those under the prompts and those under the negative words."""
        places = self._restorer.places
        if places is None:
            return 0, 0
        present = places.present(self._restorer.latent_layout(), 1)
        return (
            sum(int(found.sum()) - 1 for found in present),
            sum(int(places.without_words(found).sum()) - 1 for found in present),
        )

    def changed(self, options: RestoreOptions, together: bool) -> Passes:
        """With other tiles."""
        here: dict[str, Any] = {"accelerator": self.accelerator, "offload": self.offload, "together": together}
        here["extras"] = self.extras
        return Passes(self.costs, options, self.width, self.height, **here)

    def smaller_calls(self) -> Passes | None:
        """With the next smaller calls of the networks, as a restoration goes on where memory runs out."""
        backoff = TileBackoff(self.options, together=self.together)
        smallest = self._restorer.smallest_tile
        options = backoff.smaller_calls(self.options, self.longest, self.branches, smallest)
        return None if options is None else self.changed(options, backoff.together)

    def smaller_vae_tile(self) -> Passes | None:
        """With the next smaller tiles of the autoencoder."""
        options = smaller_vae_tile(self.options, self.longest)
        return None if options is None else self.changed(options, self.together)

    def lacking(self, memory: float) -> str:
        """What to say where these passes do not fit into so many bytes."""
        options = self.options
        tiles = f"tile {options.tile}, vae_tile {options.vae_tile}" if self._samples else f"vae_tile {options.vae_tile}"
        return (
            f"{self.width}x{self.height} px do not fit into {memory / GIGABYTE:g} GB: {self.peak / GIGABYTE:.2f} GB are"
            f" needed with the smallest tiles that make sense ({tiles}) and offload {self.offload}; {ADVICE}, or see"
            " `supir plan`"
        )

    @property
    def longest(self) -> int:
        """Pixels of the working size's longer side."""
        return max(self.width, self.height)

    @cached_property
    def bytes(self) -> dict[str, int]:
        """At the worst moment of each, beside weights and pictures."""
        first = {FIRST: self._first_bytes()} if self.extras.photo is not None else {}
        sampling = {"sampling": self._sampling()} if self._samples else {}
        return {**first, "encoding": self._coder(True), **sampling, "decoding": self._coder(False)}

    @property
    def beside(self) -> dict[str, int]:
        """Bytes beside each: the pictures, the process, and the weights that are on the device meanwhile."""
        base = _base(self.width, self.height, self.accelerator)
        first = 0 if self.extras.first is None else self.extras.first.weights  # it stays for the next picture
        return {part: base + first + self._held(part) for part in self.bytes}

    def _held(self, part: str) -> int:
        weights = self.costs.networks.weights
        if self.offload == "none":
            return sum(weights.values())
        if self.offload == "model":
            towers = [0, *(size for name, size in weights.items() if name.startswith("text_encoder"))]
            at_work = weights.get("unet", 0) + weights.get("adaptor", 0)
            if part == FIRST:
                return 0
            return max(at_work, *towers) if part == "sampling" else weights["autoencoder"]
        return 2 * self.costs.networks.largest_layer  # one at work, one on its way

    @property
    def peak(self) -> int:
        """Bytes of the process, or of the GPU, at the worst moment."""
        beside = self.beside
        return max(size + beside[part] for part, size in self.bytes.items())

    def _sampling(self) -> int:
        number, height, width = self.tiles
        rows = (self.branches if self.together else 1) * min(self.options.tile_batch, number)
        worst = self.costs.peak_of_evaluation(height, width)
        every = self.options.adaptor_every, self.options.deep_cache_every
        sizes = self.costs.kept(height, width) if max(every) > 1 else (0, 0)
        kept = sum(size for size, steps in zip(sizes, every, strict=True) if steps > 1)
        return int(WASTE * worst * rows) + kept * (self.branches * number + self.apart(self.branches))

    def _first_bytes(self) -> int:
        """Of the model that acts first: a tile, and on a processor its picture, which is put together and clamped."""
        assert self.extras.first is not None
        assert self.extras.photo is not None
        _, height, width = self._first_tiles
        pixels = 0 if self.accelerator else math.prod(self.extras.photo) * self.extras.first.scale**2
        return int(WASTE * _of_first(self.extras.first, height, width).peak) + ENLARGED * 3 * 4 * pixels

    @property
    def _first_tiles(self) -> tuple[int, int, int]:
        assert self.extras.photo is not None
        width, height = self.extras.photo
        return _tiles(first_layout(), height, width)

    def _coder(self, encoding: bool) -> int:
        _, height, width = self._coder_tiles(encoding)
        return int(WASTE * self.costs.peak_of_coder(height, width, encoding, self._zoom if encoding else 1))

    @property
    def _zoom(self) -> int:
        return self._restorer.zoom(self.height, self.width)

    def _coder_tiles(self, encoding: bool) -> tuple[int, int, int]:
        """Number of tiles, and height and width of one in pixels of what goes in."""
        if encoding:
            return _tiles(self._restorer.pixel_layout(1, "degraded_halo", self._zoom), self.height, self.width)
        return _tiles(self._restorer.pixel_layout(self.factor, "halo"), *self.latent)

    def operations(self) -> tuple[int, float]:
        """Of the whole restoration, and how many whole evaluations of one branch its sampling amounts to."""
        _, height, width = self.tiles
        whole = self.tiles[0] * self.costs.operations_of_evaluation(height, width, False, "whole")
        parts = self.parts
        return round(sum(parts.values())), parts[SAMPLING] / whole

    @cached_property
    def parts(self) -> dict[str, float]:
        """The operations of each part of the restoration."""
        number, height, width = self.tiles

        def one(step: Evaluation) -> float:
            rows = number * step.branches + self.apart(step.branches)
            return rows * self.costs.operations_of_evaluation(height, width, step.unet_outer, step.adaptor)

        encoded, tall, wide = self._coder_tiles(True)
        anchored, *anchor = _tiles(self._restorer.pixel_layout(1, "halo"), self.height, self.width)
        decoded, *latent = self._coder_tiles(False)
        decoding = decoded * self.costs.operations_of_decoding(latent[0], latent[1])
        return {
            **self._first_part,
            ENCODING: encoded * self.costs.operations_of_encoding(tall, wide, True, self._zoom),
            PREVIEW: decoding,
            ANCHOR: anchored * self.costs.operations_of_encoding(anchor[0], anchor[1], False),
            SAMPLING: sum(times * one(step) for step, times in self.steps.items()),
            DECODING: decoding,
        }

    @property
    def _first_part(self) -> dict[str, float]:
        if self.extras.first is None or self.extras.photo is None:
            return {}
        first, *tile = self._first_tiles
        return {FIRST: first * _of_first(self.extras.first, tile[0], tile[1]).operations}


@lru_cache(maxsize=8)
def _of_first(first: First, height: int, width: int) -> Cost:
    """Of a tile of the photo, in the model that acts before."""
    return traced(first.costly(height, width))


def _tiles(layout: Layout, height: int, width: int) -> tuple[int, int, int]:
    """Number of tiles, and height and width of the largest."""
    rows, columns = layout(height, width, Fraction(1))
    tall, wide = (max(strip.stop - strip.start for strip in strips) for strips in (rows, columns))
    return len(rows) * len(columns), tall, wide


def _picked(passes: Passes, memory: float) -> Passes:
    """The passes with the largest tiles with which each part fits into so many bytes; with the smallest where none."""
    ways = {"sampling": Passes.smaller_calls, "encoding": Passes.smaller_vae_tile, "decoding": Passes.smaller_vae_tile}
    for part in filter(ways.__contains__, passes.bytes):  # the tiles of who acts first are of one size
        candidate: Passes | None = passes
        while candidate is not None and passes.bytes[part] + passes.beside[part] > memory:
            candidate = ways[part](candidate)
            if candidate is not None and candidate.bytes[part] < passes.bytes[part]:
                passes = candidate  # an autoencoder's halo may keep tiles from shrinking
    return passes


def _reasons(
    plan: Plan, chosen: Passes, wanted: RestoreOptions, accelerator: bool, rate: float | None
) -> Iterator[str]:
    where = "GPU" if accelerator else "processor"
    number, height, width = chosen.tiles
    options = plan.options
    coder, stored = chosen.costs.coder_dtype, chosen.costs.stored
    held = "" if stored is None else f"; the weights of UNet and adaptor are stored as {stored}"
    yield f"dtype: {plan.dtype} on a {where}; the autoencoder is {str(coder).removeprefix('torch.')}{held}"
    if accelerator:
        yield f"offload: {plan.offload}, {OFFLOADED[plan.offload]}"
    for name in ("tile", "tile_batch", "vae_tile"):
        now, asked = getattr(options, name), getattr(wanted, name)
        yield f"{name}: {now}, " + ("as the options say" if now == asked else f"not {asked}, to fit into the memory")
    if not plan.together:
        yield "guidance: one branch after the other, to fit into the memory"
    yield f"tiles: {number} of {width * chosen.factor}x{height * chosen.factor} px"
    if added := chosen.apart(chosen.branches):
        yield f"regions: their prompts and connectors add {added} evaluations of a tile to each step"
    if FIRST in plan.passes:
        yield f"first: {options.first}, {chosen.parts[FIRST] / 1e12:.2f} TFLOP"
    pictures = _base(chosen.width, chosen.height, accelerator=True)
    beside = chosen.beside
    worst = max(plan.passes, key=lambda name: plan.passes[name] + beside[name])
    weights = (beside[worst] - _base(chosen.width, chosen.height, accelerator)) / GIGABYTE
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
    extras: Extras | None = None,
) -> str:
    """The first way of loading that fits into the memory, as a sentence; else the smallest.

    ``networks`` is how the model was meant to be loaded, and ``dtype`` what that comes to; the others are
    ``make_plan``'s.
    """
    said = ""
    borne = borne_dtypes(folder, read_model_index(folder, "SupirPipeline")) or ("float16", "bfloat16")
    half = "float16" if accelerator and "float16" in borne else "bfloat16"
    for other in _smaller(networks, dtype, accelerator, half):
        costs = Costs(networks_of(folder, other))  # their arithmetic is said, so that the device does not matter
        there: dict[str, Any] = {"memory": memory, "accelerator": accelerator, "extras": extras}
        plan = make_plan(costs, options, width, height, **there, offload=other.offload)
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
