"""`supir degrade`: low-quality pictures from good ones by a named recipe. Nothing heavy is imported before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from supir.cli.errors import FAILED, check_interrupted, exit_on_error, or_usage_error
from supir.cli.progress import show_failure
from supir.jobs.plan import find_sources

if TYPE_CHECKING:
    from supir.degradation.pairs import Made


def degrade(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="PICTURE...", help="Good pictures: files, folders, or glob patterns."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="What is done to them (see --list).", metavar="NAME", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder to write or go on with.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0, max=2**31 - 1)] = 0,
    side: Annotated[
        int | None, typer.Option(help="Keep only the middle, at most so many pixels a side.", min=8)
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(help="A degradations.jsonl: do to pictures of the same names what it says.", exists=True),
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List the recipes.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Make low-quality pictures of good ones, to restore them and hold the results against what was there.

    Writes OUT/hq (the originals, cut to multiples of 8 pixels), OUT/lq, and OUT/degradations.jsonl, which says in a
    line for each picture what was done to it. Run again it makes what is missing.
    """
    console = Console(stderr=True)
    with exit_on_error(console):
        if show_list:
            _show_recipes()
            return
        if not pictures or out is None or (recipe is None) == (replay is None):
            raise typer.BadParameter("name PICTURE..., --out, and either --recipe or --replay")
        sources, missing = find_sources(pictures)
        for outcome in missing:
            show_failure(console, outcome)
        failed = len(missing)
        from supir.degradation.pairs import REPLAYED, make_pairs, read_log

        found = None if replay is None else {pair.name: pair for pair in or_usage_error(read_log, replay)}
        made = make_pairs(sources, out, recipe or REPLAYED, seed=seed, side=side, replay=found)
        while (one := or_usage_error(next, made, None)) is not None:
            failed += one.error is not None
            _tell(console, one, out, quiet=quiet)
            check_interrupted()
    if failed:
        raise typer.Exit(FAILED)


def _tell(console: Console, made: Made, out: Path, *, quiet: bool) -> None:
    if made.error is not None:
        console.print(f"error: {made.error}", style="red", markup=False, highlight=False, soft_wrap=True)
    elif made.pair is not None and not quiet:
        verb = "is there" if made.known else "written"
        text = f"{made.path} -> {out / 'lq' / made.pair.name}.png ({verb})"
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _show_recipes() -> None:
    from supir.degradation.recipes import ABOUT

    table = Table("recipe", "what it does", title="recipes", title_justify="left")
    for name, words in ABOUT.items():
        table.add_row(name, words)
    Console().print(table)
