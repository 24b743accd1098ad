"""What the dry run tells: known counts at full size, memory that adds up, real steps of small models."""

from __future__ import annotations

import dataclasses
import json
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from smoke_runs import make_materials, needed, smoke
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from supir.models.adaptor import SupirAdaptor
from supir.training.dry_run import counts, kept_for_backward, outlook
from supir.training.photographs import PictureFolder
from supir.training.recipes import USES, named_run
from supir.training.runs import make_stage
from supir.training.sizes import SIZES, build_size

COUNTS = json.loads((Path(__file__).parents[1] / "parity" / "fixtures" / "param_counts.json").read_text())
TRIMMED = 702_031_040
"""Parameters of the adaptor with half of the transformer blocks of each encoder block: depths 1 and 5 for 2 and 10."""


def test_full_size_counts() -> None:
    found = outlook(named_run("paper/adaptor"))
    unet = COUNTS["model.diffusion_model."]["params"]
    connectors = COUNTS["model.diffusion_model.project_modules."]["params"]
    assert found.learning == {"adaptor": TRIMMED, "connectors": connectors}
    assert found.frozen["unet"] == unet - connectors
    assert found.frozen["autoencoder"] == COUNTS["first_stage_model."]["params"]
    assert found.frozen["text_encoder"] == COUNTS["conditioner.embedders.0."]["params"] - 77  # position ids
    assert found.frozen["text_encoder_2"] == COUNTS["conditioner.embedders.1."]["params"] - 1  # logit scale
    assert not found.measured
    assert found.samples_per_second is None


def test_the_paper_s_trunk_has_half_of_the_blocks_of_each_encoder_block() -> None:
    whole = SIZES["paper"]
    trimmed = build_size("paper", meta=True)["adaptor"]
    with init_empty_weights():
        full = SupirAdaptor(**whole.trunk)
    places: dict[str, list[int]] = {}
    for network in (trimmed, full):
        for name, module in network.named_modules():
            if name.endswith("transformer_blocks"):
                places.setdefault(name, []).append(len(module))
    assert len(places) == 5  # two attentions in two levels, one in the middle
    assert all(2 * half == all_of_them for half, all_of_them in places.values())
    assert sum(half for half, _ in places.values()) == 17


@pytest.mark.slow
def test_full_size_encoder_and_lora() -> None:
    encoder = outlook(named_run("paper/encoder"))
    assert encoder.learning == {"autoencoder": COUNTS["first_stage_model.denoise_encoder."]["params"]}
    lora = outlook(named_run("paper/lora"))
    assert set(lora.learning) == {"adaptor"}
    assert lora.frozen["adaptor"] == TRIMMED
    assert lora.memory()["in all"] < 12e9  # fits one small GPU
    assert lora.global_batch == 8


def test_memory_adds_up_and_is_sharded() -> None:
    found = outlook(named_run("paper/adaptor"))
    alone, of_eight = found.memory(1), found.memory(8)
    learning = sum(found.learning.values())
    assert [alone[name] for name in ("learning", "gradients", "averages")] == [4 * learning] * 3
    assert (alone["moments"], of_eight["moments"]) == (8 * learning, learning)
    # UNet and adaptor are sharded; text towers and autoencoder are whole in every process.
    whole = 2 * sum(found.frozen[name] for name in ("autoencoder", "text_encoder", "text_encoder_2"))
    assert of_eight["frozen"] == pytest.approx(whole + 2 * found.frozen["unet"] / 8, rel=1e-6)
    assert of_eight["activations"] == alone["activations"] > 0


@pytest.mark.parametrize("stage", ["encoder", "adaptor", "lora", "prior"])
def test_what_goes_to_the_device_is_what_is_told(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Frozen networks have their narrow type before they are moved, so that the wide ones are never there."""
    options = smoke(stage, mixed_precision="bf16", frozen_dtype="bfloat16", learn_words=False)
    materials = dataclasses.replace(make_materials(photographs, options), device=torch.device("meta"))
    moved: list[int] = []
    to = nn.Module.to

    def counted(self: nn.Module, *where: Any, **how: Any) -> nn.Module:
        if torch.device("meta") in where:
            moved.append(sum(parameter.nbytes for parameter in self.parameters()))
        return to(self, *where, **how)

    monkeypatch.setattr(nn.Module, "to", counted)
    found = counts(materials.networks, make_stage(materials))
    assert all(parameter.is_meta for name in USES[stage] for parameter in materials.networks[name].parameters())
    assert sum(moved) == 4 * sum(found.learning.values()) + sum(found.frozen_bytes.values())
    rest = {name: size for name, size in found.frozen.items() if name != "connectors" or stage == "lora"}
    assert {name: found.frozen_bytes[name] for name in rest} == {name: 2 * size for name, size in rest.items()}


@pytest.mark.slow
def test_full_size_few_steps(tmp_path: Path) -> None:
    """Beside the pass of the adaptor's stage it keeps one of the decoder, and one of VGG16 over its picture."""
    perceptual = needed(tmp_path)["generator"]["perceptual"]
    few = outlook(named_run("paper/generator", perceptual=perceptual))
    adaptor = outlook(named_run("paper/adaptor", batch=1))
    assert few.learning == {**adaptor.learning, "opponent": few.learning["opponent"]}
    assert few.learning["opponent"] < 1e6
    assert few.frozen["unet"] == adaptor.frozen["unet"]
    assert few.activations > adaptor.activations + 512 * 512 * 64 * 2 * 2


@pytest.mark.slow
def test_checkpointing_keeps_less() -> None:
    options = named_run("paper/adaptor")
    plain = outlook(options.replace(gradient_checkpointing=False)).activations
    assert outlook(options).activations < plain / 4


def test_what_autograd_keeps_is_counted_without_parameters() -> None:
    layer = nn.Linear(100, 10)
    x = torch.zeros(7, 100)
    with kept_for_backward({"layer": layer}) as kept:
        layer(x).relu().sum()
    assert kept == [7 * 100 * 4 + 7 * 10 * 4]


def test_small_models_are_measured(photographs: Path) -> None:
    found = outlook(smoke("adaptor", accumulation=2), photographs=PictureFolder(photographs))
    assert found.measured
    assert found.samples_per_second is not None
    assert np.isfinite(found.samples_per_second)
    assert found.epochs == 4 * 4 / 2
    assert found.memory()["activations"] > 1e5


class Peak(TorchDispatchMode):
    """Inside, what the storages of all tensors take at the most: of those there are at first, and of all made since."""

    def __init__(self, there: Iterable[object]) -> None:
        super().__init__()
        self.living, self.now, self.bytes = set[int](), 0, 0
        for thing in there:
            self._saw(tensors_of(thing))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self._saw(each for each in tree_leaves(made) if isinstance(each, torch.Tensor))
        return made

    def _saw(self, tensors: Iterable[torch.Tensor]) -> None:
        for storage in (tensor.untyped_storage() for tensor in tensors):
            if storage._cdata not in self.living:
                self.living.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.bytes = max(self.bytes, self.now)

    def _gone(self, storage: int, size: int) -> None:
        self.living.discard(storage)
        self.now -= size


def tensors_of(thing: Any) -> Iterable[torch.Tensor]:
    if isinstance(thing, torch.Tensor):
        return [thing]
    if isinstance(thing, nn.Module):
        return [*thing.parameters(), *thing.buffers()]
    if hasattr(thing, "state_dict"):
        return [each for each in tree_leaves(thing.state_dict()) if isinstance(each, torch.Tensor)]
    return []


@pytest.mark.slow
def test_one_real_step_of_a_mid_size_model() -> None:
    """An SDXL-like model of some 300 M parameters, its adaptor trimmed, moves; its prior does not. What all tensors
    take at the most, whoever made them, is within a tenth of what the dry run says.
    """
    from supir.training.dry_run import Noise
    from supir.training.loop import Trainer
    from supir.training.pairs import Heldout
    from supir.training.runs import load_networks, taking_part
    from supir.training.stage_context import StageContext

    options = named_run("mid/adaptor", steps=2, warmup_steps=0)
    networks, _ = load_networks(options, None)
    materials = StageContext(
        options=options,
        networks=taking_part(networks, options),
        photographs=Noise(),
        heldout=Heldout.of(Noise(), options.crop, {"light": 1.0}, 1),
    )
    stage = make_stage(materials)
    prior = materials.networks["unet"].conv_in.weight.clone()
    zero = materials.networks["unet"].connectors[0].zero_mul.weight
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(stage, Path(folder), options)
        batches = trainer.batches()
        trainer._one_step(batches)  # which makes the moments
        with Peak((*materials.networks.values(), *trainer.ema.values(), trainer.optimiser)) as peak:
            trainer._one_step(batches)
    assert peak.bytes == pytest.approx(outlook(options).memory()["in all"], rel=0.1)
    assert torch.equal(materials.networks["unet"].conv_in.weight, prior)
    assert zero.any()
