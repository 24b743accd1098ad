"""What the planner picks for full-size networks on cards of 8, 12, 16 and 24 GB: tiles, offload, the foretold peak.

    python bench/card_tables.py          # the tables of docs/performance.md; no weights, no GPU: minutes on a processor

A model folder of full-size configurations is made without weights, and planned for as `supir plan --device cuda` does.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import full_size_picture as full_size

from supir.options import NetworkOptions, restore_options
from supir.planner.costs import Costs, networks_of
from supir.planner.plan import GIGABYTE, make_plan

CARDS = {8: 7.3, 12: 11.2, 16: 15.1, 24: 22.8}
"""GB of a card, and what of it is taken to be free beside a desktop and the driver."""
SIDES = (1024, 2048, 4096)
KINDS = ("none", "int8")


def main() -> None:
    """Print a table a way of storing the weights."""
    full_size.write_weights = lambda network, path: None
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        full_size.write_model(model, tiny=False)
        for kind in KINDS:
            costs = Costs(networks_of(model, NetworkOptions(dtype="float16", quantize=kind), "cuda"))
            print(f"\n`--quantize {kind}`, {sum(costs.networks.weights.values()) / 1e9:.1f} GB of weights\n")
            print("| card, free | " + " | ".join(f"{side} x {side}" for side in SIDES) + " |")
            print("|---|" + "---|" * len(SIDES))
            for card, free in CARDS.items():
                cells = [cell(costs, side, free) for side in SIDES]
                print(f"| {card} GB, {free:g} | " + " | ".join(cells) + " |", flush=True)


def cell(costs: Costs, side: int, free: float) -> str:
    """Tile, tile of the autoencoder, what is offloaded, and the peak; or that it does not fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = restore_options("quality")
        plan: Any = make_plan(costs, options, side, side, memory=free * GIGABYTE, accelerator=True)
    if not plan.fits:
        return "does not fit"
    own = plan.options
    return f"{own.tile} / {own.vae_tile}, {plan.offload}, {plan.peak / GIGABYTE:.1f} GB"


if __name__ == "__main__":
    main()
