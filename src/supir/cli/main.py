"""The command `supir`. Nothing heavy is imported before a command needs it: `supir --help` answers at once.

Exit codes: 0 all done, 1 something failed (the other pictures are done all the same), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from supir import __version__
from supir.cli.arguments import (
    AsJson,
    Device,
    ModelFolder,
    Preset,
    Quiet,
    fields_in,
    flag,
    options_of,
    with_options,
)
from supir.cli.batch import batch
from supir.cli.benchmark import benchmark_app
from supir.cli.caption import caption, captioning_of, words_of
from supir.cli.data import data_app
from supir.cli.degrade import degrade
from supir.cli.errors import FAILED, exit_on_error, or_usage_error
from supir.cli.evaluate import evaluate
from supir.cli.plan import plan
from supir.cli.progress import Display, clock, show_failure
from supir.cli.restore_jobs import SigintGuard, find_sources, part_writable, plan_jobs, run_jobs
from supir.cli.serve import serve
from supir.cli.study import study_app
from supir.cli.train import train
from supir.cli.web import web
from supir.jobs import Job, Model, Outcome
from supir.options import DEFAULT_PRESET, PRESETS, CaptionOptions, NetworkOptions, RestoreOptions

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)

app.add_typer(data_app, name="data")
app.add_typer(benchmark_app, name="benchmark")
app.add_typer(study_app, name="study")


def main() -> None:
    """The entry point of the console script."""
    # Threads that wait for others sleep. By default they spin, which gains little and keeps others off the core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Names of files and captions may hold signs that the terminal's encoding lacks, as on Windows: shown as codes.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="supir")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"supir {__version__}")
        raise typer.Exit


@app.callback()
def door(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Restore photographs: a damaged, small or blurred picture goes in, a sharp one comes out."""


@app.command()
@with_options(CaptionOptions)
@with_options(NetworkOptions)
@with_options(RestoreOptions)
def restore(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Files, folders, or glob patterns.", show_default=False)
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="A file, for one photo, or a folder. Unset: NAME.restored beside the photo."
        ),
    ] = None,
    preset: Preset = None,
    model: ModelFolder = None,
    device: Device = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write NAME.compare: before and after, side by side.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist; never an input.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **overrides: Any,
) -> None:
    """Restore photos.

    A photo that cannot be read is reported and the others are still done. What was done (model, seed, options, version)
    is recorded in the metadata of each result.
    """
    console = Console(stderr=True)
    networks = options_of(NetworkOptions, overrides)
    start = time.perf_counter()
    interrupted = False
    with exit_on_error(console):
        weights = Model(folder=model, devices=(device,) if device else (), networks=networks)
        options = or_usage_error(weights.options, preset or DEFAULT_PRESET, **fields_in(overrides, RestoreOptions))
        captioning = captioning_of(overrides, device)
        sources, outcomes = find_sources(photos, results=False)
        jobs, unwritable = part_writable(or_usage_error(plan_jobs, sources, output, options, compare=compare))
        outcomes += unwritable
        for outcome in outcomes:
            show_failure(console, outcome)
        if jobs:
            try:
                if captioning is not None:
                    # Those that are there already are refused below: nobody need be asked about them.
                    jobs, uncaptioned = words_of(
                        console, jobs, captioning, weights, lambda job: overwrite or not job.taken
                    )
                    outcomes += uncaptioned
                with console.status("loading the model"):
                    pipeline = weights.open()
                with SigintGuard() as interruption, Display(console, jobs, quiet=quiet) as display:

                    def on_fraction(job: Job, fraction: float) -> None:
                        interruption.check()
                        display.fraction(job, fraction)

                    for outcome in run_jobs(pipeline, jobs, overwrite=overwrite, on_fraction=on_fraction):
                        outcomes.append(outcome)
                        display.outcome(outcome)
                        interruption.check()
            except KeyboardInterrupt:
                interrupted = True
        _summarise(console, outcomes, time.perf_counter() - start, quiet=quiet, as_json=as_json)
        if interrupted:
            raise KeyboardInterrupt
    if any(outcome.error is not None for outcome in outcomes):
        raise typer.Exit(FAILED)


app.command()(plan)
app.command()(batch)
app.command()(caption)
app.command()(serve)
app.command()(web)
app.command()(train)
app.command()(degrade)
app.command()(evaluate)


@app.command()
def convert(
    sdxl: Annotated[
        Path, typer.Argument(help="SDXL: a .safetensors file, a .ckpt of tensors alone, or a diffusers folder.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model folder to write.", show_default=False)],
    supir: Annotated[
        Path | None,
        typer.Argument(help="A published SUPIR file, likewise. Unset: the first file holds both.", show_default=False),
    ] = None,
    vae: Annotated[
        Path | None,
        typer.Option(help="A file or folder whose autoencoder is taken instead of the base's.", show_default=False),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="An SDXL folder or file whose text towers are taken instead.", show_default=False),
    ] = None,
    prediction_type: Annotated[
        str | None,
        typer.Option(
            help="What the UNet predicts: epsilon, v_prediction. Unset: what the files say.", show_default=False
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the weights written: float16, bfloat16, float32.", show_default=False)
    ] = None,
    lenient: Annotated[
        bool,
        typer.Option("--lenient", help="For training: SUPIR's parts begin anew where no file has them."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model folder that exists, and nothing else.")
    ] = False,
) -> None:
    """Turn SDXL and a published SUPIR file into a model folder for `supir restore --model`.

    Nothing in the files is executed. Your files keep their own licences: the published SUPIR weights are not for
    commercial use.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    with exit_on_error(console):
        from supir.weights.convert import convert as convert_files

        columns = BarColumn(), DownloadColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("", total=None)
            report = or_usage_error(
                convert_files,
                sdxl,
                supir,
                output,
                vae=vae,
                text=text,
                prediction_type=prediction_type,
                strict=not lenient,
                overwrite=overwrite,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
                **({} if dtype is None else {"dtype": dtype}),
            )
        typer.echo(report.summary())
        typer.echo(f"wrote {output}; use it with: supir restore PHOTO --model {output}")


@app.command()
def presets(model: ModelFolder = None) -> None:
    """List the presets and the values that each comes to with a model; every value can be overridden by its option."""
    from supir.options.presets import trade_offs

    console = Console()
    with exit_on_error(console):
        weights = Model(folder=model)
        whose = "the bundled model" if model is None else model.name
        table = Table("option", *PRESETS, title=f"presets of {whose} (default: {DEFAULT_PRESET})", title_justify="left")
        chosen = {name: dataclasses.asdict(weights.options(name)) for name in PRESETS}
        for field in chosen[DEFAULT_PRESET]:
            table.add_row(flag(field), *(_shown(values[field]) for values in chosen.values()))
        console.print(table)
        for name, about in trade_offs(weights.presets).items():
            console.print(f"{name}: {about}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def version() -> None:
    """Print the versions of supir and of what it stands on."""
    from importlib.metadata import version as version_of

    typer.echo(f"supir {__version__}")
    for package in ("torch", "diffusers", "transformers", "pyvips"):
        typer.echo(f"{package} {version_of(package)}")


def _shown(value: Any) -> str:
    return "unset" if value is None else '""' if value == "" else str(value)


def _summarise(console: Console, outcomes: list[Outcome], seconds: float, *, quiet: bool, as_json: bool) -> None:
    restored = [outcome for outcome in outcomes if outcome.error is None]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if as_json:
        summary = {
            "restored": [
                {"input": str(done.source), "output": str(done.target), "seconds": round(done.seconds, 3)}
                | dict(done.words)
                | ({"compare": str(done.compare)} if done.compare else {})
                for done in restored
            ],
            "failed": [{"input": str(bad.source), "error": bad.error} for bad in failed],
            "seconds": round(seconds, 3),
        }
        typer.echo(json.dumps(summary))
    elif not quiet:
        folders = sorted({str(done.target.parent) for done in restored if done.target})
        where = f" in {', '.join(folders[:3])}{' ...' * (len(folders) > 3)}" if folders else ""
        text = f"{len(restored)} restored, {len(failed)} failed, {clock(seconds)} in all{where}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
