"""Training runs on the device: every stage learns there what it learns on the processor, and waits once a step."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from simulated import device
from supir.training import dry_run
from supir.training.loop import Trainer
from supir.training.pairs import Heldout
from supir.training.recipes import named_run, shares
from supir.training.runs import load_networks, make_stage, taking_part
from supir.training.sharding import make_accelerator
from supir.training.stage_context import StageContext
from supir.training.states import load_latest
from training.smoke_runs import needed

STEPS = 2
DRY = (
    "smoke/autoencoder",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("smoke/adaptor", "paper/encoder")),
)
FEW_STEPS = "generator beside a frozen prior"
SLOW = ("prior", "adaptor", "lora", "restorer", "generator", FEW_STEPS)
STAGES = ["autoencoder", "encoder", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.fixture(autouse=True)
def _own_accelerator() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an EfficientNet-lite0 by chance: those of its first blocks, which are all that is compared."""
    generator = torch.Generator().manual_seed(1)
    weights: dict[str, Tensor] = {}

    def layer(convolution: str, norm: str, before: int, after: int, kernel: int) -> None:
        noise = torch.randn(after, before, kernel, kernel, generator=generator)
        weights[f"{convolution}.weight"] = noise / (before * kernel**2) ** 0.5
        for name in ("running_mean", "bias"):
            weights[f"{norm}.{name}"] = torch.zeros(after)
        for name in ("running_var", "weight"):
            weights[f"{norm}.{name}"] = torch.ones(after)

    layer("_conv_stem", "_bn0", 3, 4, 3)
    for index in range(5):
        layer(f"_blocks.{index}._depthwise_conv", f"_blocks.{index}._bn1", 1, 4, 3)
        layer(f"_blocks.{index}._project_conv", f"_blocks.{index}._bn2", 4, 4, 1)
    path = tmp_path_factory.mktemp("features") / "weights.pth"
    torch.save(weights, path)
    return path


def learn(stage_name: str, folder: Path, features: Path, *, cpu: bool = False) -> tuple[Trainer, device.Counts]:
    """A few steps, and the last sheet, of a smoke run."""
    extra = {"features": str(features)} if stage_name == "autoencoder" else {}
    frozen, stage_name = stage_name == FEW_STEPS, stage_name.split()[0]
    if stage_name in ("restorer", "generator"):
        extra = needed(folder.parent)[stage_name] | ({"frozen_prior": True} if frozen else {})
    options = named_run(
        f"smoke/{stage_name}", steps=STEPS, batch=1, crop=64, validation_steps=9, checkpoint_steps=9, **extra
    )
    accelerator = make_accelerator(cpu=cpu)
    networks, _ = load_networks(options, None)
    source = dry_run.Noise()
    materials = StageContext(
        options=options,
        networks=taking_part(networks, options),
        photographs=source,
        heldout=Heldout.of(source, options.crop, shares(options.degradation), 1),
        device=accelerator.device,
    )
    trainer = Trainer(make_stage(materials), folder, options, accelerator)
    batches = trainer.batches()
    with device.counted() as found:
        for _ in range(STEPS):
            trainer._one_step(batches)
    if not cpu:
        trainer.validate()
    trainer.save()
    return trainer, found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_learns_there_what_it_learns_here(stage: str, tmp_path: Path, features: Path) -> None:
    there, found = learn(stage, tmp_path / "there", features)
    assert {parameter.device.type for parameter in there.learning.values()} == {"sim"}
    assert {average.device.type for average in there.ema.values()} == {"sim"}
    assert found.waits <= STEPS, "more than one wait for the device a step"
    AcceleratorState._reset_state(reset_partial_state=True)
    learn(stage, tmp_path / "here", features, cpu=True)
    states = [load_latest(tmp_path / name) for name in ("there", "here")]
    apart = torch.cat([(states[0].ema[name] - t).abs().flatten() for name, t in states[1].ema.items()])
    # Adam divides by the gradient's size: where it is all rounding, so is a step. Such places are few.
    assert float(apart.mean()) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert there.resume()
    assert there.step == STEPS


@pytest.mark.parametrize("name", DRY)
def test_the_dry_run_tells(name: str) -> None:
    found = dry_run.outlook(named_run(name))
    assert found.measured is name.startswith("smoke")
    assert found.memory()["activations"] > 0
