"""Runs of smoke size for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import torch

from supir.training.materials import Materials
from supir.training.pairs import Heldout
from supir.training.photographs import PictureFolder
from supir.training.recipes import StageOptions, named_run, shares
from supir.training.runs import load_networks, taking_part

ROOT = Path(__file__).parents[2]


def make_materials(folder: Path, options: StageOptions, start: Path | None = None, **networks: object) -> Materials:
    """What a stage of these options is made from."""
    source = PictureFolder(folder)
    loaded, _ = load_networks(options, start)
    return Materials(
        options=options,
        networks=taking_part(loaded | networks, options, torch.device("cpu")),
        photographs=source,
        heldout=Heldout.of(source, options.crop, shares(options.degradation), 2),
    )


def smoke(stage: str, **overrides: object) -> StageOptions:
    """The options of a smoke run."""
    return named_run(f"smoke/{stage}", **overrides)
