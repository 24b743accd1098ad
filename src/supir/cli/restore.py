"""`supir restore`: photos, one after the other. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.console import Console

from supir.cli.arguments import (
    AsJson,
    Audited,
    Device,
    ModelFolder,
    Photos,
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
from supir.cli.errors import FAILED, exit_on_error, say
from supir.cli.foretelling import foretell
from supir.cli.progress import clock, run_shown, show_failure
from supir.jobs.job import Outcome
from supir.jobs.plan import find_sources, plan_jobs, with_fitting_scale
from supir.jobs.restoring import part_ready
from supir.options import DEFAULT_PRESET, CaptionOptions, NetworkOptions, RestoreOptions, SigningOptions
from supir.options.audit import AuditOptions


@with_options(AuditOptions)
@with_options(SigningOptions)
@with_options(CaptionOptions)
@with_options(NetworkOptions)
@with_options(RestoreOptions)
def restore(
    photos: Photos,
    output: Annotated[
        str | None,
        option("A file, for one photo, or a folder. Unset: NAME.restored beside the photo.", "--output", "-o"),
    ] = None,
    preset: Preset = None,
    model: ModelFolder = None,
    device: Device = None,
    compare: Annotated[bool, option("Also write NAME.compare: before and after, side by side.", "--compare")] = False,
    overwrite: Annotated[bool, option("Replace results that exist; never an input.", "--overwrite")] = False,
    audit: Audited = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **overrides: Any,
) -> None:
    """Restore photos.

    A photo that cannot be read is reported and the others are still done. What was done (model, seed, options, version)
    is recorded in the metadata of each result.
    """
    start = time.perf_counter()
    with exit_on_error() as console:
        signing = options_of(SigningOptions, overrides)
        weights = model_of(model, device, options_of(NetworkOptions, overrides), signing=signing)
        options = weights.options(preset or DEFAULT_PRESET, **fields_in(overrides, RestoreOptions))
        captioning = captioning_of(overrides, device, preset)
        sources, outcomes = find_sources(photos, results=False)
        auditing = auditing_of(audit, overrides)
        jobs = [replace(job, audit=auditing) for job in plan_jobs(sources, output, options, compare=compare)]
        if overrides.get("scale") is None:
            jobs = with_fitting_scale(jobs)
        jobs, unready = part_ready(jobs, overwrite=overwrite)
        outcomes += unready
        for outcome in outcomes:
            show_failure(console, outcome)
        if not quiet:
            foretell(console, jobs, weights, overrides.get("scale") is not None)
        interrupted = bool(jobs) and run_shown(
            console, jobs, outcomes, captioning=captioning, quiet=quiet, out=None, model=weights, overwrite=overwrite
        )
        _summarise(console, outcomes, time.perf_counter() - start, quiet=quiet, as_json=as_json)
        if interrupted:
            raise KeyboardInterrupt
    if any(outcome.error is not None or outcome.audit.get("past_limits") for outcome in outcomes):
        raise typer.Exit(FAILED)


def _summarise(console: Console, outcomes: list[Outcome], seconds: float, *, quiet: bool, as_json: bool) -> None:
    restored = [outcome for outcome in outcomes if outcome.error is None]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if as_json:
        summary = {
            "restored": [
                {"input": str(done.source), "output": str(done.target), "seconds": round(done.seconds, 3)}
                | dict(done.words)
                | ({"audit": dict(done.audit)} if done.audit else {})
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
        say(console, f"{len(restored)} restored, {len(failed)} failed, {clock(seconds)} in all{where}")
