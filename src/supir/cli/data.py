"""`supir data`: data sets for training, built and looked at. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from supir.cli.arguments import Device, Quiet, option, options_of, with_options
from supir.cli.errors import FAILED, check_interrupted, exit_on_error, say, show_error, show_warning
from supir.cli.progress import clock
from supir.data.options import BuildOptions, QualityRules

if TYPE_CHECKING:
    from supir.data.build import Summary
    from supir.data.shards import Captioner
    from supir.pool import Runner

data_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Build data sets for training, and look at them."
)

RULES_PANEL = "Quality rules (off switches one off)"
MAX_TOLD = 5
"""Captions that were not taken and are told one by one."""
STEPS = {"measure": "measuring pictures", "write": "writing shards"}


@data_app.command()
@with_options(BuildOptions, "What is stored")
@with_options(QualityRules, RULES_PANEL)
def build(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Folders with all inside them, files, or glob patterns.")
    ],
    out: Annotated[Path, option("The data folder to write or go on with.", "--out", "-o")],
    captions: Annotated[
        str,
        option(
            "'beside': the .txt or .json beside each picture; or a folder of an image-to-text model, asked where"
            " there is none.",
            metavar="beside|FOLDER",
        ),
    ] = "beside",
    device: Device = None,
    workers: Annotated[int, option("Worker processes; 1 works in this one.", min=1, max=4096)] = 1,
    ray: Annotated[str | None, option("Work on a Ray cluster: auto, HOST:PORT, or local.", metavar="ADDRESS")] = None,
    overwrite: Annotated[bool, option("Replace a data set built there with other options.", "--overwrite")] = False,
    quiet: Quiet = False,
    **overrides: Any,
) -> None:
    """Turn photographs into webdataset shards: filtered, captioned, with provenance, statistics and an index.

    Run again after an interruption, or with more pictures, it goes on where it was. The bytes of the shards do not
    depend on the number of workers.
    """
    start = time.perf_counter()
    with exit_on_error() as console:
        options = replace(options_of(BuildOptions, overrides), rules=options_of(QualityRules, overrides))
        captioner = _captioner(captions, device)
        from supir.data.build import build as build_data

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        hidden = quiet or not console.is_terminal
        bars = Progress(*columns, console=console, disable=hidden, transient=True)
        with closing(_runner(workers, ray)) as runner, bars:
            tasks: dict[str, TaskID] = {}

            def on_progress(step: str, done: int, total: int) -> None:
                check_interrupted()
                if step not in tasks:
                    tasks[step] = bars.add_task(STEPS[step])
                bars.update(tasks[step], completed=done, total=total)

            summary = build_data(
                photos, out, options=options, captioner=captioner, runner=runner, overwrite=overwrite,
                on_progress=on_progress,
            )  # fmt: skip
    if not quiet:
        _summarise(console, summary, out, time.perf_counter() - start)
    if summary.num_samples == 0:
        show_error(console, f"no picture was kept; see {out / 'report.html'}")
        raise typer.Exit(FAILED)


@data_app.command()
def stats(folder: Annotated[Path, typer.Argument(help="A data folder, as `supir data build` makes it.")]) -> None:
    """Write the report of a data set anew: counts, histograms, thumbnails, what was rejected and why."""
    with exit_on_error():
        from supir.data.report import write_report

        typer.echo(f"wrote {write_report(folder)}")


def _captioner(captions: str, device: str | None) -> Captioner | None:
    if captions == "beside":
        return None
    from supir.caption.model import ModelCaptioner
    from supir.weights.device import find_device

    return ModelCaptioner(Path(captions), device=None if device is None else str(find_device(device)))


def _runner(workers: int, address: str | None) -> Runner[Any]:
    from supir.pool import Processes, Serial

    if address is not None:
        from supir.pool.on_ray import OnRay

        return OnRay(workers if workers > 1 else None, address, num_threads=1)
    return Processes(workers, num_threads=1) if workers > 1 else Serial()


def _summarise(console: Console, summary: Summary, out: Path, seconds: float) -> None:
    for reason in summary.refused[:MAX_TOLD]:
        show_warning(console, f"a caption was not taken: {reason}")
    if len(summary.refused) > MAX_TOLD:
        more = len(summary.refused) - MAX_TOLD
        show_warning(console, f"{more} more captions were not taken; pictures.jsonl says why")
    rejected = ", ".join(f"{count} {reason}" for reason, count in summary.reasons.items())
    kept = f"{summary.num_kept} of {summary.num_pictures} pictures kept as {summary.num_samples} samples"
    why = f"; rejected: {rejected}" if rejected else ""
    say(console, f"{kept} in {summary.num_shards} shards, {clock(seconds)} in all{why}")
    say(console, f"look at {out / 'report.html'}")
