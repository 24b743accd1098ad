"""`supir batch`: many pictures, each made once, on one process, several, or a Ray cluster."""

from __future__ import annotations

import sys
import time
from contextlib import closing, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from supir.cli.arguments import (
    AsJson,
    Audited,
    Devices,
    ModelFolder,
    Preset,
    Quiet,
    auditing_of,
    fields_in,
    model_of,
    option,
    options_of,
    with_options,
)
from supir.cli.caption import captioning_of
from supir.cli.errors import FAILED, exit_on_error, say, show_warning
from supir.cli.foretelling import foretell
from supir.cli.progress import clock, run_shown, show_failure
from supir.files import check_ours
from supir.jobs.batch import LOG, REPORT
from supir.jobs.job import Outcome
from supir.jobs.manifest import read_manifest
from supir.jobs.model import Model
from supir.jobs.plan import BatchItem, discover, left_out, plan_batch
from supir.options import DEFAULT_PRESET, CaptionOptions, NetworkOptions, RestoreOptions, SigningOptions
from supir.options.audit import AuditOptions
from supir.pool import Processes, Runner, Serial

RUNNERS = ("serial", "processes", "ray")


@with_options(AuditOptions)
@with_options(SigningOptions)
@with_options(CaptionOptions)
@with_options(NetworkOptions)
@with_options(RestoreOptions)
def batch(
    output: Annotated[Path, option("The folder to write or go on with.", "--output", "-o")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Files, folders with all inside them, or glob patterns."),
    ] = None,
    manifest: Annotated[
        Path | None,
        option(
            "A list of pictures in place of INPUT, CSV or JSON lines: path, and where wanted output, preset and"
            " any field of the options (see docs/batch.md).",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    variants: Annotated[
        int, option("Results a picture, with seeds from --seed on: NAME.s0.png, NAME.s1.png ...", min=1)
    ] = 1,
    runner: Annotated[
        str | None,
        option(
            f"Who works: {', '.join(RUNNERS)}. Unset: ray with --ray-address, processes with several workers.",
            metavar="NAME",
        ),
    ] = None,
    workers: Annotated[int, option("Each holds its own copy of the weights.", min=1, max=4096, metavar="N")] = 1,
    ray_address: Annotated[
        str | None, option("A Ray cluster: auto, HOST:PORT, or local. Unset: local.", metavar="ADDRESS")
    ] = None,
    preset: Preset = None,
    model: ModelFolder = None,
    device: Devices = None,
    audit: Audited = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **overrides: Any,
) -> None:
    """Restore many pictures into a folder, resumably.

    Run again after an interruption of any kind it goes on where it was: what is done is left alone, what failed is
    tried again, and what has another input, other options or other weights now is made anew. Folders inside INPUT are
    kept in the output folder, where batch.jsonl says what was done and report.json what the last run came to.
    """
    start = time.perf_counter()
    outcomes: list[Outcome] = []
    with exit_on_error() as console:
        signing = options_of(SigningOptions, overrides)
        weights = model_of(model, device, options_of(NetworkOptions, overrides), signing=signing)
        captioning = captioning_of(overrides, weights.devices[0] if weights.devices else None, preset)
        chosen = {"preset": preset or DEFAULT_PRESET, **fields_in(overrides, RestoreOptions)}
        wanted, outcomes = _wanted(inputs or [], manifest, output, weights, chosen)
        auditing = auditing_of(audit, overrides)
        jobs = [replace(job, audit=auditing) for job in plan_batch(wanted, output, variants=variants)]
        for outcome in outcomes:
            show_failure(console, outcome)
        if others := left_out(inputs or [], output):
            counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
            show_warning(console, f"left out, as supir does not read them: {counts}; convert them to JPEG, PNG or TIFF")
        check_ours(output, [LOG], "batch")  # before torch is imported
        if not quiet and runner != "ray" and not ray_address:
            todo = [job for job in jobs if not job.taken]
            at_once = min(workers, len(set(weights.placed().devices)))
            foretell(console, todo, weights, manifest is not None or chosen.get("scale") is not None, at_once)
        # standard output is for the report: Ray prints there that a machine is lost, until it is left
        with redirect_stdout(sys.stderr), closing(_runner(runner, workers, ray_address)) as crew:
            interrupted = run_shown(
                console, jobs, outcomes, captioning=captioning, quiet=quiet, out=output, model=weights, runner=crew
            )
        _summarise(console, outcomes, output, time.perf_counter() - start, quiet=quiet, as_json=as_json)
        if interrupted:
            raise KeyboardInterrupt
    if any(outcome.error is not None or outcome.audit.get("past_limits") for outcome in outcomes):
        raise typer.Exit(FAILED)


def _wanted(
    inputs: list[str], manifest: Path | None, output: Path, weights: Model, chosen: dict[str, Any]
) -> tuple[list[BatchItem], list[Outcome]]:
    """The pictures, and the inputs that stand for none."""
    if bool(inputs) == (manifest is not None):
        raise typer.BadParameter("give either INPUT or --manifest")
    options = weights.options(**chosen)
    if manifest is not None:
        return read_manifest(manifest, weights.options, chosen), []
    wanted, failures = discover(inputs, output, options)
    return [replace(each, scaled=chosen.get("scale") is not None) for each in wanted], failures


def _runner(name: str | None, workers: int, address: str | None) -> Runner[Any]:
    name = name or ("ray" if address else "processes" if workers > 1 else "serial")
    if name not in RUNNERS:
        raise typer.BadParameter(f"--runner is {name!r}; it must be one of {', '.join(RUNNERS)}")
    if name != "ray" and address:
        raise typer.BadParameter("--ray-address is for --runner ray")
    if name == "serial" and workers > 1:
        raise typer.BadParameter("--runner serial has one worker; choose processes or ray for more")
    if name == "serial":
        return Serial()
    if name == "processes":
        return Processes(workers)
    from supir.pool.on_ray import OnRay

    return OnRay(workers, address or "local")


def _summarise(
    console: Console, outcomes: list[Outcome], output: Path, seconds: float, *, quiet: bool, as_json: bool
) -> None:
    num_failed = sum(outcome.error is not None for outcome in outcomes)
    num_skipped = sum(outcome.skipped for outcome in outcomes)
    num_restored = len(outcomes) - num_failed - num_skipped
    if as_json:
        typer.echo((output / REPORT).read_text(encoding="utf-8"), nl=False)
    elif not quiet:
        counts = f"{num_restored} restored, {num_skipped} skipped, {num_failed} failed"
        say(console, f"{counts}, {clock(seconds)} in all; see {output / REPORT}")
