"""What a run would be, told before anything starts: steps, parameters, memory, pace.

Small models are built and two real steps are timed. The paper's sizes are worked out on the meta device, where
parameters have shapes and no memory; there the activations are what autograd keeps in one pass, counted likewise.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from supir.restoration.restorer import latent_factor
from supir.training.loop import Stage, Trainer
from supir.training.pairs import Heldout
from supir.training.photographs import Crop, Photographs
from supir.training.recipes import StageOptions, shares
from supir.training.runs import load_networks, make_stage, taking_part, tokenizers
from supir.training.sharding import make_accelerator
from supir.training.sizes import Networks, build_size
from supir.training.stage_context import StageContext
from supir.training.stages.restorer import Losses

ARITHMETIC = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MOMENT_BYTES = {"adamw": 8, "adamw8bit": 2}
"""Both moments of one parameter."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a run would be."""

    options: StageOptions
    learning: dict[str, int]
    """Parameters that learn, by component."""
    frozen: dict[str, int]
    """Parameters that do not."""
    frozen_bytes: dict[str, int]
    """What those take, in the type that the run holds them in."""
    num_pictures: int | None
    activations: int
    """Bytes that autograd keeps for one pass."""
    measured: bool
    """Whether steps were really made."""
    samples_per_second: float | None = None
    sharded: tuple[str, ...] = field(default=("unet", "adaptor"))
    """Components that FSDP would shard; the others are whole in every process."""

    @property
    def global_batch(self) -> int:
        """Samples of one optimiser step, in each process."""
        return self.options.batch * self.options.accumulation

    @property
    def epochs(self) -> float | None:
        """How often the run sees every picture, where their number is known."""
        return self.options.steps * self.global_batch / self.num_pictures if self.num_pictures else None

    def memory(self, num_shards: int = 1) -> dict[str, int]:
        """Bytes of one process of ``num_shards`` under FSDP (1: without): by what they hold, and in all.

        Buffers of libraries and the allocator's waste come on top.
        """
        learning = sum(self.learning.values())
        found = {
            "learning": 4 * learning // num_shards,
            "frozen": sum(
                size // (num_shards if name in self.sharded else 1) for name, size in self.frozen_bytes.items()
            ),
            "gradients": 4 * learning // num_shards,
            "moments": MOMENT_BYTES[self.options.optimiser] * learning // num_shards,
            "averages": 4 * learning // num_shards,
            "activations": self.activations,
        }
        return {**found, "in all": sum(found.values())}


class Noise(Photographs):
    """Pictures of nothing, where only the pace matters."""

    def __len__(self) -> int:
        return 1

    def draw(self, rng: np.random.Generator, size: int, number: int | None = None) -> Crop:
        """A crop of noise."""
        return Crop(rng.integers(0, 256, (size, size, 3), dtype=np.uint8), "a photo")


def outlook(options: StageOptions, *, start: Path | None = None, photographs: Photographs | None = None) -> DryRun:
    """Work out a run without starting it.

    Without a model folder to ``start`` from its size is built with random weights; without ``photographs`` it learns
    from noise of the same size.
    """
    num_pictures = None if photographs is None else len(photographs)
    if options.size == "paper" and start is None:
        return _on_meta(options, num_pictures)
    accelerator = make_accelerator(mixed_precision=options.mixed_precision, accumulation=options.accumulation)
    networks, _ = load_networks(options, start)
    materials = _materials(options, networks, photographs or Noise(), accelerator.device)
    stage = make_stage(materials)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(stage, Path(folder), options, accelerator)
        batches = trainer.batches()
        with kept_for_backward(materials.networks) as kept:
            loss, _ = trainer.learner(stage.loss, next(batches), 0.0)
        del loss
        trainer._one_step(batches)
        _wait(accelerator.device)
        begun = time.perf_counter()
        for _ in range(2):
            trainer._one_step(batches)
        _wait(accelerator.device)
        seconds = time.perf_counter() - begun
    return DryRun(
        options=options,
        **counts(materials.networks, stage)._asdict(),
        num_pictures=num_pictures,
        activations=kept[0],
        measured=True,
        samples_per_second=2 * options.batch * options.accumulation / seconds,
        sharded=tuple(stage.modules),
    )


def _wait(device: torch.device) -> None:
    """Until a device has done what it was given; a processor has it done already."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def _materials(
    options: StageOptions, networks: Networks, photographs: Photographs, device: torch.device
) -> StageContext:
    return StageContext(
        options=options,
        networks=taking_part(networks, options),
        photographs=photographs,
        heldout=Heldout.of(photographs, options.crop, shares(options.degradation), 1),
        device=device,
    )


class Counts(NamedTuple):
    """Of a stage by component, the UNet's connectors apart: see ``DryRun``."""

    learning: dict[str, int]
    frozen: dict[str, int]
    frozen_bytes: dict[str, int]


def counts(networks: Networks, stage: Stage) -> Counts:
    """Parameters that learn, that do not, and what the latter take."""
    found = Counts({}, {}, {})
    for component, module in (networks | dict(stage.modules)).items():
        for name, parameter in module.named_parameters() if isinstance(module, nn.Module) else ():
            full = f"{component}.{name}"
            place = "connectors" if full.startswith("unet.connectors.") else component
            learns = component in stage.modules and not stage.frozen(full)
            kind = found.learning if learns else found.frozen
            kind[place] = kind.get(place, 0) + parameter.numel()
            if not learns:
                found.frozen_bytes[place] = found.frozen_bytes.get(place, 0) + parameter.nbytes
    return found


@contextmanager
def kept_for_backward(networks: Networks) -> Iterator[list[int]]:
    """Counts the bytes that autograd keeps inside the block, parameters left out; they stand in the list afterwards."""
    modules = [part for part in networks.values() if isinstance(part, nn.Module)]
    seen = {p.untyped_storage()._cdata for module in modules for p in module.parameters()}
    kept, total = [], [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            kept.append(storage)  # so that its address is not given to another
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
    kept.clear()


def _on_meta(options: StageOptions, num_pictures: int | None) -> DryRun:
    """The stage itself, of networks that have shapes alone."""
    networks = build_size(options.size, meta=True, connectors=options.new_connectors) | tokenizers()
    materials = _materials(options, networks, Noise(), torch.device("meta"))
    stage = make_stage(materials)
    counted = counts(materials.networks, stage)
    for module in materials.networks.values():
        if isinstance(module, nn.Module):
            module.to(dtype=ARITHMETIC[options.mixed_precision])  # so that what is kept is counted in that type
    run_through = {"encoder": _encoder_pass, "generator": _few_steps_pass}.get(options.stage, _diffusion_pass)
    with kept_for_backward(materials.networks) as kept:
        result = run_through(materials.networks, options)
    del result
    return DryRun(
        options=options,
        **counted._asdict(),
        num_pictures=num_pictures,
        activations=kept[0],
        measured=False,
        sharded=tuple(sorted(stage.modules)),
    )


def _encoder_pass(networks: Networks, options: StageOptions) -> Tensor:
    coder = networks["autoencoder"]
    pictures = torch.zeros(options.batch, 3, options.crop, options.crop, device="meta", dtype=coder.dtype)
    found = [coder.decode(coder.encode_degraded(pictures).latent_dist.mode()).sample for _ in range(2)]
    return torch.stack(found)


def _few_steps_pass(networks: Networks, options: StageOptions) -> list[Tensor]:
    """A step, its picture, and what VGG16 sees in it."""
    predicted = _diffusion_pass(networks, options)
    pictures = networks["autoencoder"].decode(predicted).sample
    losses = Losses(options, torch.device("meta"))
    if losses.vgg is not None:
        losses.vgg.to(dtype=ARITHMETIC[options.mixed_precision])
    return [pictures, *losses.features(pictures)]


def _diffusion_pass(networks: Networks, options: StageOptions) -> Tensor:
    coder, unet, adaptor = networks["autoencoder"], networks["unet"], networks["adaptor"]
    like = {"device": "meta", "dtype": unet.dtype}
    side, batch = options.crop // latent_factor(coder), options.batch
    latent = torch.zeros(batch, coder.config.latent_channels, side, side, **like)
    tokens = torch.zeros(batch, 77, unet.config.cross_attention_dim, **like)
    vector = {"vector": torch.zeros(batch, unet.config.projection_class_embeddings_input_dim, **like)}
    timestep = torch.zeros(batch, device="meta")
    control = adaptor(latent, timestep, tokens, vector, latent)
    predicted: Tensor = unet(latent, timestep, tokens, added_cond_kwargs=vector, control=control).sample
    return predicted
