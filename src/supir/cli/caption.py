"""`supir caption`, and what `restore` and `batch` share with it. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from supir.caption import Caption
from supir.cli.arguments import (
    Device,
    ModelFolder,
    Photos,
    Preset,
    Quiet,
    fields_in,
    model_of,
    option,
    options_of,
    with_options,
)
from supir.cli.errors import FAILED, check_interrupted, exit_on_error, say
from supir.cli.progress import found_sources, show_failure
from supir.jobs.captioning import OF_THE_PREVIEW, CaptionCache, Captioning
from supir.jobs.job import Outcome
from supir.options import DEFAULT_PRESET, CaptionOptions, RestoreOptions

if TYPE_CHECKING:
    from supir.errors import SupirError

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".json")
"""Of manifests that can be written; the first is a table, the others are an object a line."""


def captioning_of(overrides: dict[str, Any], device: str | None, preset: str | None = None) -> Captioning | None:
    """What the options of a command say about captions; None when nobody is to be asked.

    The preset reference asks as the paper does, where nothing else is said.
    """
    options = options_of(CaptionOptions, overrides)
    if options == CaptionOptions():
        return None
    from supir.caption.spec import captioner_of, looks_at_pictures
    from supir.caption.words import OF_THE_PAPER

    if preset == "reference" and looks_at_pictures(options.captioner):
        options = options_of(CaptionOptions, OF_THE_PAPER | {k: v for k, v in overrides.items() if v is not None})

    captioner = captioner_of(options, device=device)
    if captioner is None:
        return None
    return Captioning(captioner=captioner, cache=CaptionCache() if options.caption_cache else None)


@with_options(CaptionOptions)
@with_options(RestoreOptions, only=OF_THE_PREVIEW)
def caption(
    photos: Photos,
    manifest: Annotated[
        Path | None,
        option(
            "Also write a list that `supir batch --manifest` reads, CSV or JSON lines, with the captions as"
            " prompts to be edited. The photos must lie below its folder.",
            dir_okay=False,
        ),
    ] = None,
    overwrite: Annotated[bool, option("Replace a list that exists, and what was edited in it.", "--overwrite")] = False,
    preset: Preset = None,
    model: ModelFolder = None,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Annotated[bool, option("Print a JSON object a photo instead of lines.", "--json")] = False,
    **overrides: Any,
) -> None:
    """Describe photos, as `supir restore --captioner` would before it restores them.

    A captioner reads the clean preview, so what decides that (model, preset, scale ...) is best given as it will be
    for restoring; the captions are then taken from the cache.
    """
    found: list[tuple[Path, Caption | None]] = []
    with exit_on_error() as console:
        captioning = captioning_of(overrides, device, preset)
        if captioning is None:
            raise typer.BadParameter("--captioner is needed: a model folder, a URL, beside, or a .txt file")
        weights = model_of(model, device)
        options = weights.options(preset or DEFAULT_PRESET, **fields_in(overrides, RestoreOptions))
        sources, failed = found_sources(console, photos)
        if manifest is not None:
            _check_manifest(manifest, sources, overwrite=overwrite)
        answers = captioning.captions([(source, options) for source in sources], weights)
        for source, answer in zip(sources, answers, strict=True):
            check_interrupted()
            found.append((source, answer if isinstance(answer, Caption) else None))
            if not isinstance(answer, Caption):
                show_failure(console, Outcome(source=source, error=str(answer)))
            _tell(source, answer, quiet=quiet, as_json=as_json)
        failed += sum(said is None for _, said in found)
        if manifest is not None:
            _write_manifest(manifest, found)
            if not quiet:
                then = f"supir batch --manifest {manifest} -o FOLDER"
                say(console, f"wrote {manifest}; edit the prompts in it, then: {then}")
    if failed:
        raise typer.Exit(FAILED)


def _tell(source: Path, answer: Caption | SupirError, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"input": str(source), **(_words(answer) or {"error": str(answer)})}))
    elif isinstance(answer, Caption) and not quiet:
        typer.echo(f"{source}: {answer.text}")


def _words(answer: Caption | SupirError | None) -> dict[str, str]:
    return {"caption": answer.text, "captioner": answer.captioner} if isinstance(answer, Caption) else {}


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
        words = _words(said) if said and said.text else {"caption": "", "captioner": ""}
        rows.append({"path": _below(source, manifest), "prompt": words["caption"], **words})
    if manifest.suffix.lower() == ".csv":
        write_whole(manifest, csv_table([("path", "prompt", "caption", "captioner"), *(row.values() for row in rows)]))
    else:
        write_entries(manifest, rows)


def _below(source: Path, manifest: Path) -> str:
    """The path of a photo from the folder of the manifest; symbolic links are not looked through."""
    return Path(os.path.relpath(source, manifest.parent)).as_posix()
