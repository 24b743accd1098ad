"""Runs of smoke size for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from supir.models.perceptual import Lpips
from supir.models.restorers import RealEsrgan
from supir.training.pairs import Heldout
from supir.training.photographs import PictureFolder
from supir.training.recipes import StageOptions, named_run, shares
from supir.training.runs import load_networks, taking_part
from supir.training.stage_context import StageContext
from supir.training.stages.restorer import NUM_TEACHER_BLOCKS

ROOT = Path(__file__).parents[2]


def make_materials(folder: Path, options: StageOptions, start: Path | None = None, **networks: object) -> StageContext:
    """What a stage of these options is made from."""
    source = PictureFolder(folder)
    loaded, _ = load_networks(options, start)
    return StageContext(
        options=options,
        networks=taking_part(loaded | networks, options),
        photographs=source,
        heldout=Heldout.of(source, options.crop, shares(options.degradation), 2),
    )


def smoke(stage: str, **overrides: object) -> StageOptions:
    """The options of a smoke run."""
    return named_run(f"smoke/{stage}", **overrides)


def options(**changes: Any) -> StageOptions:
    """Those of a run that is only a loop."""
    usual = {"learning_rate": 1e-3, "checkpoint_steps": 200, "validation_steps": 500, "keep_best": ""}
    return StageOptions(**usual | changes)


def needed(folder: Path) -> dict[str, dict[str, Any]]:
    """Options of the stages that need weights of others, which are made here at random."""
    features, teacher = folder / "perceptual.safetensors", folder / "x4plus.bin"
    torch.manual_seed(0)
    save_file({f"lpips.vgg16.{name}": value for name, value in Lpips("vgg16").state_dict().items()}, features)
    _write_ncnn(RealEsrgan(NUM_TEACHER_BLOCKS), teacher)
    common = {"perceptual": str(features), "adversarial_share": 0.5}
    return {
        "restorer": {**common, "teacher": str(teacher), "teacher_weight": 0.5, "restorer_blocks": 1},
        "generator": common,
    }


def _write_ncnn(network: RealEsrgan, path: Path) -> None:
    """As ncnn stores it: a mark, weights in half precision filled up to four bytes, biases in full."""
    with path.open("wb") as file:
        parts = [part for part in network.modules() if isinstance(part, torch.nn.Conv2d)]
        for convolution in sorted(parts, key=lambda part: part is not network.conv_in):
            weights = convolution.weight.detach().half().numpy().tobytes()
            file.write((0x01306B47).to_bytes(4, "little") + weights + bytes(-len(weights) % 4))
            file.write(convolution.bias.detach().numpy().tobytes())
