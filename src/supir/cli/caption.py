"""`supir caption`, and what `restore` and `batch` share with it. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from supir.caption import Caption
from supir.cli.arguments import (
    Device,
    ModelFolder,
    Preset,
    Quiet,
    fields_in,
    options_of,
    with_options,
)
from supir.cli.errors import FAILED, check_interrupted, exit_on_error, or_usage_error
from supir.cli.progress import show_failure
from supir.jobs.captioning import OF_THE_PREVIEW, Captioning
from supir.jobs.job import Outcome
from supir.jobs.model import Model
from supir.jobs.plan import find_sources
from supir.options import DEFAULT_PRESET, CaptionOptions, RestoreOptions

if TYPE_CHECKING:
    from supir.errors import SupirError

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".json")
"""Of manifests that can be written; the first is a table, the others are an object a line."""


def captioning_of(overrides: dict[str, Any], device: str | None) -> Captioning | None:
    """What the options of a command say about captions; None when nobody is to be asked."""
    options = options_of(CaptionOptions, overrides)
    if options == CaptionOptions():
        return None
    from supir.caption.cache import CaptionCache
    from supir.caption.spec import captioner_of

    captioner = or_usage_error(captioner_of, options, device=device)
    if captioner is None:
        return None
    return Captioning(captioner=captioner, cache=CaptionCache() if options.caption_cache else None)


@dataclass(frozen=True, kw_only=True)
class _Photo:
    source: Path
    options: RestoreOptions


@with_options(CaptionOptions)
@with_options(RestoreOptions, only=OF_THE_PREVIEW)
def caption(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Files, folders, or glob patterns.", show_default=False)
    ],
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Also write a list that `supir batch --manifest` reads, CSV or JSON lines, with the captions as"
            " prompts to be edited. The photos must lie below its folder.",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a list that exists, and what was edited in it.")
    ] = False,
    preset: Preset = None,
    model: ModelFolder = None,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a photo instead of lines.")] = False,
    **overrides: Any,
) -> None:
    """Describe photos, as `supir restore --captioner` would before it restores them.

    A captioner reads the clean preview, so what decides that (model, preset, scale ...) is best given as it will be
    for restoring; the captions are then taken from the cache.
    """
    console = Console(stderr=True)
    failed = 0
    found: list[tuple[Path, Caption | None]] = []
    with exit_on_error(console):
        captioning = captioning_of(overrides, device)
        if captioning is None:
            raise typer.BadParameter("--captioner is needed: a model folder, a URL, beside, or a .txt file")
        weights = Model(folder=model, devices=(device,) if device else ())
        options = or_usage_error(weights.options, preset or DEFAULT_PRESET, **fields_in(overrides, RestoreOptions))
        sources, missing = find_sources(photos)
        if manifest is not None:
            _check_manifest(manifest, sources, overwrite=overwrite)
        for outcome in missing:
            show_failure(console, outcome)
        asked = [_Photo(source=source, options=options) for source in sources]
        for photo, answer in captioning.captions(asked, weights):
            check_interrupted()
            found.append((photo.source, answer if isinstance(answer, Caption) else None))
            if not isinstance(answer, Caption):
                show_failure(console, Outcome(source=photo.source, error=str(answer)))
            _tell(photo.source, answer, quiet=quiet, as_json=as_json)
        failed = len(missing) + sum(said is None for _, said in found)
        if manifest is not None:
            _write_manifest(manifest, found)
            if not quiet:
                text = f"wrote {manifest}; edit the prompts in it, then: supir batch --manifest {manifest} -o FOLDER"
                console.print(text, markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(FAILED)


def _tell(source: Path, answer: Caption | SupirError, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        said = (
            {"caption": answer.text, "captioner": answer.captioner}
            if isinstance(answer, Caption)
            else {"error": str(answer)}
        )
        typer.echo(json.dumps({"input": str(source), **said}))
    elif isinstance(answer, Caption) and not quiet:
        typer.echo(f"{source}: {answer.text}")


def _check_manifest(manifest: Path, sources: Sequence[Path], *, overwrite: bool) -> None:
    if manifest.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"--manifest {manifest}: suffix must be one of {', '.join(SUFFIXES)}")
    if manifest.exists() and not overwrite:
        raise typer.BadParameter(f"--manifest {manifest} exists; pass --overwrite to replace it")
    for source in sources:
        if _below(source, manifest).startswith(".."):
            raise typer.BadParameter(f"{source} does not lie below the folder of --manifest {manifest}; put it there")


def _write_manifest(manifest: Path, found: Iterable[tuple[Path, Caption | None]]) -> None:
    """The captions as prompts to be edited, and once more as they were made: a record can tell the two apart."""
    from supir.files import write_entries, write_whole
    from supir.files.report import csv_table

    rows = []
    for source, said in found:
        text, captioner = (said.text, said.captioner) if said and said.text else ("", "")
        rows.append({"path": _below(source, manifest), "prompt": text, "caption": text, "captioner": captioner})
    if manifest.suffix.lower() == ".csv":
        names = ("path", "prompt", "caption", "captioner")
        write_whole(manifest, csv_table([names, *(row.values() for row in rows)]))
    else:
        write_entries(manifest, rows)


def _below(source: Path, manifest: Path) -> str:
    """The path of a photo from the folder of the manifest; symbolic links are not looked through."""
    return Path(os.path.relpath(source, manifest.parent)).as_posix()
