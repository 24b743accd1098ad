"""`supir presets`: what the presets come to with a model."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.table import Table

from supir.cli.arguments import ModelFolder, flag
from supir.cli.errors import exit_on_error
from supir.jobs.model import Model
from supir.options import DEFAULT_PRESET, PRESETS
from supir.options.presets import trade_offs


def presets(model: ModelFolder = None) -> None:
    """List the presets and the values that each comes to with a model; every value can be overridden by its option."""
    console = Console()
    with exit_on_error(console):
        weights = Model(folder=model)
        whose = "the bundled model" if model is None else model.name
        table = Table("option", *PRESETS, title=f"presets of {whose} (default: {DEFAULT_PRESET})", title_justify="left")
        chosen = {name: dataclasses.asdict(weights.options(name)) for name in PRESETS}
        for field in chosen[DEFAULT_PRESET]:
            table.add_row(flag(field), *(_shown(values[field]) for values in chosen.values()))
        console.print(table)
        for name, about in trade_offs(weights.presets).items():
            console.print(f"{name}: {about}", markup=False, highlight=False, soft_wrap=True)


def _shown(value: Any) -> str:
    return "unset" if value is None else '""' if value == "" else str(value)
