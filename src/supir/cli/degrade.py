"""`supir degrade`: low-quality pictures from good ones by a named recipe. Nothing heavy is imported before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from supir.cli.arguments import Quiet, option
from supir.cli.errors import FAILED, check_interrupted, exit_on_error, say, show_error
from supir.cli.progress import found_sources

if TYPE_CHECKING:
    from supir.degradation.pairs import Made


def degrade(
    pictures: Annotated[
        list[str] | None, typer.Argument(metavar="PICTURE...", help="Good pictures: files, folders, or glob patterns.")
    ] = None,
    recipe: Annotated[str | None, option("What is done to them (see --list).", metavar="NAME")] = None,
    out: Annotated[Path | None, option("The folder to write or go on with.", "--out", "-o")] = None,
    seed: Annotated[int, option("Of what is drawn.", min=0, max=2**31 - 1)] = 0,
    side: Annotated[int | None, option("Keep only the middle, at most so many pixels a side.", min=8)] = None,
    replay: Annotated[
        Path | None, option("A degradations.jsonl: do to pictures of the same names what it says.", exists=True)
    ] = None,
    show_list: Annotated[bool, option("List the recipes.", "--list")] = False,
    quiet: Quiet = False,
) -> None:
    """Make low-quality pictures of good ones, to restore them and hold the results against what was there.

    Writes OUT/hq (the originals, cut to multiples of 8 pixels), OUT/lq, and OUT/degradations.jsonl, which says in a
    line for each picture what was done to it. Run again it makes what is missing.
    """
    with exit_on_error() as console:
        if show_list:
            _show_recipes()
            return
        if not pictures or out is None or (recipe is None) == (replay is None):
            raise typer.BadParameter("name PICTURE..., --out, and either --recipe or --replay")
        sources, failed = found_sources(console, pictures)
        from supir.degradation.pairs import REPLAYED, make_pairs, read_log

        found = None if replay is None else {pair.name: pair for pair in read_log(replay)}
        for one in make_pairs(sources, out, recipe or REPLAYED, seed=seed, side=side, replay=found):
            failed += one.error is not None
            _tell(console, one, out, quiet=quiet)
            check_interrupted()
    if failed:
        raise typer.Exit(FAILED)


def _tell(console: Console, made: Made, out: Path, *, quiet: bool) -> None:
    if made.error is not None:
        show_error(console, made.error)
    elif made.pair is not None and not quiet:
        verb = "is there" if made.known else "written"
        say(console, f"{made.path} -> {out / 'lq' / made.pair.name}.png ({verb})")


def _show_recipes() -> None:
    from supir.degradation.recipes import ABOUT

    table = Table("recipe", "what it does", title="recipes", title_justify="left")
    for name, words in ABOUT.items():
        table.add_row(name, words)
    Console().print(table)
