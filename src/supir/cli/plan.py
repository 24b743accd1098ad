"""`supir plan`: what restoring a photo will take, without loading weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from supir.cli.arguments import ModelFolder, Preset, fields_in, model_of, option, options_of, with_options
from supir.cli.errors import exit_on_error
from supir.cli.words import said
from supir.errors import OptionError
from supir.options import DEFAULT_PRESET, NetworkOptions, RestoreOptions


@with_options(NetworkOptions)
@with_options(RestoreOptions)
def plan(
    photo: Annotated[Path, typer.Argument(help="A picture; only its size is read.")],
    preset: Preset = None,
    model: ModelFolder = None,
    device: Annotated[
        str | None, option("cpu, cuda, xpu, mps ...; need not be here. Unset: a GPU if torch sees one.")
    ] = None,
    rate: Annotated[
        float | None,
        option(
            "GFLOP/s that the networks reach. Unset: as last time, or measured, where the device is here.", min=0.001
        ),
    ] = None,
    as_json: Annotated[bool, option("Print JSON.", "--json")] = False,
    **overrides: Any,
) -> None:
    """Say which tiles, how much memory and how long `supir restore` will take with the same options.

    With --memory the tiles are picked to fit. Reads configurations only; no weights are loaded but those of --first.
    """
    with exit_on_error():
        networks = options_of(NetworkOptions, overrides)
        options = model_of(model).options(preset or DEFAULT_PRESET, **fields_in(overrides, RestoreOptions))
        from supir.image import read_size
        from supir.planner.kept import KeptCosts, kept_rate
        from supir.planner.plan import GIGABYTE, advice, extras_on, make_plan, size_on
        from supir.tensors.memory import available
        from supir.weights.device import best_device, kind_of
        from supir.weights.model_folder import BUNDLED_MODEL

        width, height = read_size(photo)
        place = device or best_device()
        kind = kind_of(place)
        costs = KeptCosts(model or BUNDLED_MODEL, networks, kind, quiet=True)
        size = size_on(costs, options, width, height)
        picture = options, size.padded_width, size.padded_height
        here = _device(place)
        free = None if here is None else available(here)
        memory = free if options.memory is None else options.memory * GIGABYTE
        extras = extras_on(costs, options, width, height)
        there: dict[str, Any] = {"memory": memory, "accelerator": kind != "cpu", "extras": extras}
        if rate is not None:
            measured: float | None = rate * 1e9
        else:
            measured = None if here is None else kept_rate(costs.key, place, costs.dtype)
        found = make_plan(costs, *picture, **there, offload=networks.offload, rate=measured)
        advised = None if found.fits else advice(model or BUNDLED_MODEL, networks, costs.dtype, *picture, **there)
        if as_json:
            working = {"working_size": [size.padded_width, size.padded_height], "advice": advised}
            typer.echo(json.dumps({**working, **asdict(found)}))
            return
        told = [f"working size: {size.padded_width}x{size.padded_height} px, from {width}x{height} px", *found.reasons]
        if found.seconds is None:
            told.append(f"time: unknown, since {place} is not here to be measured; give --rate")
        if advised is not None:
            told.append(f"advice: {advised}")
        for line in told:
            typer.echo(said(line))


def _device(place: str) -> Any:
    """None where it is not here: it can be planned for all the same, but for the time."""
    from supir.weights.device import find_device

    try:
        return find_device(place)
    except OptionError:
        return None
