"""`supir presets`: what the presets come to with a model."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from supir.cli.arguments import ModelFolder, flag, model_of
from supir.cli.errors import exit_on_error, say
from supir.options import DEFAULT_PRESET, PRESETS
from supir.options.presets import same_presets, trade_offs, without_use


def presets(model: ModelFolder = None) -> None:
    """List the presets and the values that each comes to with a model; every value can be overridden by its option."""
    console = Console()
    with exit_on_error():
        weights = model_of(model)
        whose = "the bundled model" if model is None else model.name
        same = same_presets(weights.presets)
        shown = [name for name in PRESETS if name not in same]
        heads = [" = ".join([name, *(other for other, first in same.items() if first == name)]) for name in shown]
        table = Table("option", *heads, title=f"presets of {whose} (default: {DEFAULT_PRESET})", title_justify="left")
        unused = weights.presets.get("unused", {})
        chosen = [weights.options(name) for name in shown]
        for field in [name for name in chosen[0].fields() if name not in unused]:
            values = [
                "-" if without_use(field, options, weights.presets) else _shown(getattr(options, field))
                for options in chosen
            ]
            table.add_row(flag(field), *values)
        console.print(table)
        for reason in dict.fromkeys(unused.values()):
            flags = ", ".join(flag(name) for name, why in unused.items() if why == reason)
            text = f"not used by this model: {flags} ({reason})"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        console.print("-: has no effect beside the others", markup=False, highlight=False)
        for name, about in trade_offs(weights.presets).items():
            say(console, f"{name}: {about}")


def _shown(value: Any) -> str:
    return "unset" if value is None else '""' if value == "" else str(value)
