"""`supir study`: people compare methods blindly in the browser. Nothing heavy is imported before."""

from __future__ import annotations

import json
import logging
import socket
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from supir.cli.arguments import Host, Port, RootPath, TrustedProxies, folder, option
from supir.cli.errors import exit_on_error, say, show_warning
from supir.cli.serve import address_of, listen
from supir.errors import OptionError, StudyError

if TYPE_CHECKING:
    from supir.evaluation.study.pictures import Compared

study_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Ask people which result is better or best: blind, in the browser."
)


@study_app.command()
def serve(
    benchmark: Annotated[Path | None, folder("A folder that `supir benchmark` wrote.")] = None,
    methods: Annotated[
        str | None, option("Of the benchmark, with commas between: two or more.", metavar="NAMES")
    ] = None,
    recipes: Annotated[
        str | None, option("Of the benchmark. Unset: all that have these methods.", metavar="NAMES")
    ] = None,
    method: Annotated[
        list[str] | None,
        option("Results from a folder instead, paired by name. Two or more times.", metavar="NAME=FOLDER"),
    ] = None,
    inputs: Annotated[Path | None, folder("Folder of the degraded pictures, to be looked at.", "--input")] = None,
    originals: Annotated[Path | None, folder("Folder of the originals, likewise.", "--original")] = None,
    ask: Annotated[
        Literal["pairs", "best"], option("For the better of every two methods, or for the best of all at once.")
    ] = "pairs",
    database: Annotated[Path, option("The file of the votes, begun or gone on with.")] = Path("study.sqlite"),
    questions: Annotated[int | None, option("Asked of each participant. Unset: all.", min=1)] = None,
    host: Host = "127.0.0.1",
    port: Port = 8188,
    root_path: RootPath = "",
    trusted_proxies: TrustedProxies = "",
) -> None:
    """Serve a page where people choose the better of two results, or the best of all, without knowing what made them.

    The order, the places and, with --questions, which are asked are random for every participant. Votes are kept in
    one SQLite file; stopped and started again, everyone goes on where they were.
    """
    with exit_on_error() as console:
        from supir.evaluation.study.pictures import identities
        from supir.evaluation.study.store import MOST_AT_ONCE, Store
        from supir.service.http.addressing import Front
        from supir.service.http.logs import set_up_logs
        from supir.service.http.server import Server
        from supir.service.http.study import web_app

        front = Front.of(root_path, trusted_proxies)
        names, cases = _cases(console, benchmark, methods, recipes, method, inputs, originals)
        at_once = 2 if ask == "pairs" else len(names)
        if at_once > MOST_AT_ONCE:
            raise OptionError(
                f"--ask best shows {MOST_AT_ONCE} methods at most, not {at_once}; name fewer, or ask pairs"
            )
        with console.status(f"reading the pictures of {len(cases)} cases"):
            hashes = identities(cases, names)
        store = Store.begin(database, names, hashes, at_once)
        listening = _listen(console, host, port)
        count = store.num_questions()
        say(console, f"{count} questions about {len(cases)} pictures; votes go to {database}")
        typer.echo(f"{address_of(host, listening.getsockname()[1], root_path)}  (Ctrl-C stops)")
        set_up_logs(logging.WARNING)
        Server(web_app(store, cases, hashes, questions, front)).run(sockets=[listening])
        say(console, f"stopped; see: supir study report {database}")


@study_app.command()
def report(
    database: Annotated[Path, typer.Argument(help="The file of the votes.")],
    as_csv: Annotated[bool, option("As CSV in place of a markdown table.", "--csv")] = False,
    as_json: Annotated[bool, option("As JSON likewise.", "--json")] = False,
) -> None:
    """Say which method of each pair, or of all, was preferred, and how sure that is. May run while votes come in."""
    with exit_on_error() as console:
        from supir.evaluation.study import report as reports
        from supir.evaluation.study.store import Store

        if as_csv and as_json:
            raise typer.BadParameter("--csv or --json, not both")
        found = reports.preferences(Store(database).votes())
        if as_json:
            typer.echo(json.dumps([asdict(one) for one in found], indent=1))
        elif as_csv:
            typer.echo(reports.as_csv(found), nl=False)
        elif found:
            typer.echo(reports.as_markdown(found))
        else:
            console.print("no votes yet")


def _cases(
    console: Console,
    benchmark: Path | None,
    methods: str | None,
    recipes: str | None,
    folders: list[str] | None,
    inputs: Path | None,
    originals: Path | None,
) -> tuple[list[str], list[Compared]]:
    """The methods and the pictures that all have; says which were left out."""
    from supir.evaluation.study.pictures import benchmark_cases, folder_cases

    if (benchmark is None) == (not folders) or (benchmark is None) != (methods is None):
        raise typer.BadParameter("name --benchmark and --methods, or --method NAME=FOLDER two or more times")
    if benchmark is not None and methods is not None:
        names = list(dict.fromkeys(methods.split(",")))
        wanted = recipes.split(",") if recipes else None
        cases, left_out = benchmark_cases(benchmark, names, wanted, inputs)
    else:
        named = {}
        for text in folders or ():
            name, equals, folder = text.partition("=")
            if not (name and equals and folder) or name in named:
                raise typer.BadParameter(f"--method {text}: write NAME=FOLDER, each name once")
            named[name] = Path(folder)
        names = list(named)
        cases, left_out = folder_cases(named, inputs, originals)
    if left_out:
        say(console, f"left out, as not every method has them: {', '.join(left_out)}", "yellow")
    if not cases:
        raise StudyError("no picture that every method has; results are paired by name without suffix")
    return names, cases


def _listen(console: Console, host: str, port: int) -> socket.socket:
    """Bound before anything is said, so that the address is true; warns where others can reach it."""
    from supir.service.http.middleware import is_loopback

    listening = listen(host, port, open_to_all=True)
    address = listening.getsockname()[0]
    if not is_loopback(address):
        text = f"{address} is not this machine alone: everyone who reaches it sees the pictures and can vote"
        show_warning(console, f"{text}; nothing is encrypted")
    return listening
