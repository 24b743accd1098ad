"""`supir data`: data sets for training, built and looked at. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from supir.cli.arguments import Device
from supir.cli.errors import FAILED, exit_on_error, or_usage_error, show_warning
from supir.cli.progress import clock
from supir.cli.restore_jobs import SigintGuard
from supir.data.options import BuildOptions, QualityRules

if TYPE_CHECKING:
    from supir.data.build import Summary
    from supir.data.captions import Captioner
    from supir.pool.mapping import Runner

data_app = typer.Typer(no_args_is_help=True, help="Build data sets for training, and look at them.")

RULES_PANEL = "Quality rules (off switches one off)"
MAX_TOLD = 5
"""Captions that were not taken and are told one by one."""
STEPS = {"measure": "measuring pictures", "write": "writing shards"}


def _rule(name: str, doc: str) -> Any:
    """The option of one limit of `QualityRules`."""
    default = getattr(QualityRules(), name)
    return typer.Option(
        help=f"{doc} Unset: {default:g}.", metavar="N|off", show_default=False, rich_help_panel=RULES_PANEL
    )


@data_app.command()
def build(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Folders with all inside them, files, or glob patterns.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The data folder to write or go on with.")],
    tile: Annotated[int | None, typer.Option(help="Cut into disjoint tiles of this side, pixels.")] = None,
    reduce: Annotated[int, typer.Option(help="Shrink by this whole number first.", metavar="N")] = 1,
    captions: Annotated[
        str,
        typer.Option(
            help="'beside': the .txt or .json beside each picture; or a folder of an image-to-text model, asked where"
            " there is none.",
            metavar="beside|FOLDER",
        ),
    ] = "beside",
    device: Device = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of pictures that state none, e.g. CC-BY-4.0.", metavar="NAME")
    ] = None,
    require_licence: Annotated[
        bool, typer.Option("--require-licence", help="Leave out pictures of unknown licence.")
    ] = False,
    photos_per_shard: Annotated[int, typer.Option(help="Pictures, or possible tiles, of one shard.")] = 1000,
    workers: Annotated[int, typer.Option(help="Worker processes; 1 works in this one.", min=1, max=4096)] = 1,
    ray: Annotated[
        str | None,
        typer.Option(help="Work on a Ray cluster: auto, HOST:PORT, or local.", metavar="ADDRESS", show_default=False),
    ] = None,
    min_side: Annotated[str | None, _rule("min_side", "Shorter side, pixels.")] = None,
    max_aspect: Annotated[str | None, _rule("max_aspect", "Longer over shorter side.")] = None,
    min_sharpness: Annotated[str | None, _rule("min_sharpness", "Variance of the Laplacian of grey levels.")] = None,
    max_flat_share: Annotated[str | None, _rule("max_flat_share", "Share of flat blocks, 0 to 1.")] = None,
    max_blockiness: Annotated[str | None, _rule("max_blockiness", "Steps at an 8-pixel grid over others.")] = None,
    min_jpeg_quality: Annotated[str | None, _rule("min_jpeg_quality", "By the quantisation tables, 1 to 100.")] = None,
    duplicate_distance: Annotated[str | None, _rule("duplicate_distance", "Differing bits of 128.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a data set built there with other options.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Turn photographs into webdataset shards: filtered, captioned, with provenance, statistics and an index.

    Run again after an interruption, or with more pictures, it goes on where it was. The bytes of the shards do not
    depend on the number of workers.
    """
    limits = {"min_side": min_side, "max_aspect": max_aspect, "min_sharpness": min_sharpness,
              "max_flat_share": max_flat_share, "max_blockiness": max_blockiness,
              "min_jpeg_quality": min_jpeg_quality, "duplicate_distance": duplicate_distance}  # fmt: skip
    console = Console(stderr=True)
    start = time.perf_counter()
    with exit_on_error(console):
        rules = or_usage_error(QualityRules, **_limits(limits))
        options = or_usage_error(
            BuildOptions,
            rules=rules,
            tile=tile,
            reduce=reduce,
            licence=licence,
            require_licence=require_licence,
            photos_per_shard=photos_per_shard,
        )
        captioner = or_usage_error(_captioner, captions, device)
        from supir.data.build import build as build_data

        runner = _runner(workers, ray)
        try:
            with SigintGuard() as interruption, _Bars(console, quiet) as bars:

                def on_progress(step: str, done: int, total: int) -> None:
                    interruption.check()
                    bars.update(step, done, total)

                summary = or_usage_error(
                    build_data,
                    photos,
                    out,
                    options=options,
                    captioner=captioner,
                    runner=runner,
                    overwrite=overwrite,
                    on_progress=on_progress,
                )
        finally:
            runner.close()
    if not quiet:
        _say(console, summary, out, time.perf_counter() - start)
    if summary.num_samples == 0:
        console.print(f"error: no picture was kept; see {out / 'report.html'}", style="red", markup=False)
        raise typer.Exit(FAILED)


@data_app.command()
def stats(folder: Annotated[Path, typer.Argument(help="A data folder, as `supir data build` makes it.")]) -> None:
    """Write the report of a data set anew: counts, histograms, thumbnails, what was rejected and why."""
    with exit_on_error(Console(stderr=True)):
        from supir.data.report import write_report

        typer.echo(f"wrote {or_usage_error(write_report, folder)}")


def _limits(given: dict[str, str | None]) -> dict[str, float | None]:
    """The limits that were given, as numbers; ``off`` is None."""
    limits: dict[str, float | None] = {}
    for name, text in given.items():
        if text is None:
            continue
        number: Any = int if name in ("min_side", "duplicate_distance") else float
        try:
            limits[name] = None if text == "off" else number(text)
        except ValueError:
            flag = "--" + name.replace("_", "-")
            kind = "a whole number" if number is int else "a number"
            raise typer.BadParameter(f"{flag}: {text!r} is neither {kind} nor off") from None
    return limits


def _captioner(captions: str, device: str | None) -> Captioner | None:
    if captions == "beside":
        return None
    from supir.caption.model import ModelCaptioner
    from supir.weights.device import find_device

    return ModelCaptioner(Path(captions), device=None if device is None else str(find_device(device)))


def _runner(workers: int, address: str | None) -> Runner:
    from supir.pool.mapping import Processes, Serial

    if address is not None:
        from supir.pool.on_ray import OnRay

        return OnRay(address, workers if workers > 1 else None)
    return Processes(workers) if workers > 1 else Serial()


def _say(console: Console, summary: Summary, out: Path, seconds: float) -> None:
    for reason in summary.refused[:MAX_TOLD]:
        show_warning(console, f"a caption was not taken: {reason}")
    if len(summary.refused) > MAX_TOLD:
        more = len(summary.refused) - MAX_TOLD
        show_warning(console, f"{more} more captions were not taken; pictures.jsonl says why")
    rejected = ", ".join(f"{count} {reason}" for reason, count in summary.reasons.items())
    text = (
        f"{summary.num_kept} of {summary.num_pictures} pictures kept as {summary.num_samples} samples in"
        f" {summary.num_shards} shards, {clock(seconds)} in all"
        f"{f'; rejected: {rejected}' if rejected else ''}\nlook at {out / 'report.html'}"
    )
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Bars:
    """A bar for each step of a build; nothing on anything but a terminal."""

    def __init__(self, console: Console, quiet: bool) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        self._progress = Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, step: str, done: int, total: int) -> None:
        """So many of this step are done."""
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(STEPS[step])
        self._progress.update(self._tasks[step], completed=done, total=total)
