"""`supir plan`: what restoring a photo will take, without loading weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from supir.cli.arguments import ModelFolder, Preset, fields_in, options_of, with_options
from supir.cli.errors import exit_on_error, or_usage_error
from supir.errors import OptionError
from supir.jobs import Model
from supir.options import DEFAULT_PRESET, NetworkOptions, RestoreOptions


@with_options(NetworkOptions)
@with_options(RestoreOptions)
def plan(
    photo: Annotated[Path, typer.Argument(help="A picture; only its size is read.", show_default=False)],
    preset: Preset = None,
    model: ModelFolder = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, xpu, mps ...; need not be here. Unset: a GPU if torch sees one.", show_default=False
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="GFLOP/s that the networks reach. Unset: as last time, or measured, where the device is here.",
            min=0.001,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **overrides: Any,
) -> None:
    """Say which tiles, how much memory and how long `supir restore` will take with the same options.

    With --memory the tiles are picked to fit. Reads configurations only; no weights are loaded.
    """
    console = Console(stderr=True)
    with exit_on_error(console):
        networks = options_of(NetworkOptions, overrides)
        weights = Model(folder=model)
        options = or_usage_error(weights.options, preset or DEFAULT_PRESET, **fields_in(overrides, RestoreOptions))
        from supir.weights.silence import silence_libraries

        silence_libraries()
        from supir.image import read_size, working_size
        from supir.planner.kept import KeptCosts, kept_rate
        from supir.planner.plan import GIGABYTE, advice, make_plan
        from supir.restoration.restorer import size_multiple
        from supir.weights.device import best_device, kind_of
        from supir.weights.model_folder import BUNDLED_MODEL

        width, height = read_size(photo)
        place = device or best_device()
        kind = or_usage_error(kind_of, place)
        costs = or_usage_error(KeptCosts, model or BUNDLED_MODEL, networks, kind)
        multiple = size_multiple(costs.networks.components["autoencoder"])
        size = working_size(width, height, options.scale, options.min_size, multiple)
        picture = options, size.padded_width, size.padded_height
        there: dict[str, Any] = {
            "memory": _free(place) if options.memory is None else options.memory * GIGABYTE,
            "accelerator": kind != "cpu",
        }
        measured = rate * 1e9 if rate is not None else _rate(partial(kept_rate, costs.key), place, costs.dtype)
        found = make_plan(costs, *picture, **there, offload=networks.offload, rate=measured)
        advised = None if found.fits else advice(model or BUNDLED_MODEL, networks, costs.dtype, *picture, **there)
        if as_json:
            working = {"working_size": [size.padded_width, size.padded_height], "advice": advised}
            typer.echo(json.dumps({**working, **asdict(found)}))
            return
        typer.echo(f"working size: {size.padded_width}x{size.padded_height} px, from {width}x{height} px")
        for reason in found.reasons:
            typer.echo(reason)
        if found.seconds is None:
            typer.echo(f"time: unknown, since {place} is not here to be measured; give --rate")
        if advised is not None:
            typer.echo(f"advice: {advised}")


def _rate(measure: Any, place: str, dtype: Any) -> float | None:
    """None, and so no time, for a device that is not here: it can be planned for all the same."""
    from supir.weights.device import find_device

    try:
        find_device(place)
    except OptionError:
        return None
    return float(measure(place, dtype))


def _free(place: str) -> int | None:
    """What the networks may fill on a device, as a restoration asks; None for the processor and what is not here."""
    from supir.tensors.memory import available
    from supir.weights.device import find_device

    try:
        return available(find_device(place))
    except OptionError:
        return None
