"""`supir train`: the named runs of training. Nothing heavy is imported before a run is asked for."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from supir.cli.arguments import folder, option, settings_of
from supir.cli.errors import exit_on_error
from supir.weights.silence import silence_libraries

if TYPE_CHECKING:
    from supir.training.dry_run import DryRun
    from supir.training.recipes import StageOptions

SHARDS = (1, 8, 64)
"""Numbers of processes that the dry run tells the memory for, where it is not measured."""


def train(
    run: Annotated[
        str | None,
        typer.Argument(help="A named run, such as small/adaptor (see --list); negatives makes negative samples."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        option("Photographs: a data set of `supir data build`, tiles, or plain pictures. May be repeated."),
    ] = None,
    weight: Annotated[
        list[float] | None, option("Share of each --data among the samples, in their order. Unset: all pictures alike.")
    ] = None,
    out: Annotated[Path | None, option("The run's folder; a run that is there is continued.", "--out", "-o")] = None,
    start: Annotated[
        Path | None, folder("The model folder to start from. Unset: random weights of the run's size.", "--from")
    ] = None,
    negatives: Annotated[
        Path | None,
        folder("Negative-quality pictures (`supir train negatives`). Unset: plain degradations."),
    ] = None,
    heldout: Annotated[
        Path | None, folder("Held-out photographs. Unset: an eighth of the data's, at most 6 of a folder.")
    ] = None,
    settings: Annotated[
        list[str] | None, option("An option of the run, over its own. May be repeated.", "--set", metavar="FIELD=VALUE")
    ] = None,
    minutes: Annotated[float | None, option("Stop after so long; the same command continues.", min=0.0)] = None,
    threads: Annotated[int | None, option("Of the processor. Unset: torch's own choice.", min=1)] = None,
    dry_run: Annotated[
        bool, option("Tell steps, parameters, memory and pace, and start nothing.", "--dry-run")
    ] = False,
    show_list: Annotated[bool, option("List the named runs and what may be set.", "--list")] = False,
    export: Annotated[
        Path | None,
        option(
            "Write the model of this run's folder as far as it is, finished or not, and train nothing.",
            exists=True,
            file_okay=False,
            metavar="RUN_FOLDER",
        ),
    ] = None,
    best: Annotated[bool, option("With --export: of the state that was best.", "--best")] = False,
) -> None:
    """Train a part of a model, from its named run to a model folder for `supir restore --model`.

    A run that was killed, or stopped by --minutes, is continued by the same command to the very bits it would have had.
    Several processes: `accelerate launch -m supir.cli train ...`.
    """
    with exit_on_error() as console:
        silence_libraries()  # first: they complain while they are imported
        from supir.training.recipes import StageOptions, named_run

        if show_list:
            _show_runs()
            return
        if export is not None:
            from supir.training.runs import export as write_out

            made = write_out(export, best=best)
            typer.echo(f"wrote {made}; use it with: supir restore PHOTO --model {made}")
            return
        if best:
            raise typer.BadParameter("--best says which state --export writes; name a run's folder by --export")
        if run is None:
            raise typer.BadParameter("name a run; `supir train --list` lists them")
        if run == "negatives":
            given = {"--minutes": minutes, "--heldout": heldout, "--negatives": negatives, "--weight": weight}
            _make_negatives(data, out, start, settings, [name for name, value in given.items() if value is not None])
            return
        options = named_run(run, **settings_of(StageOptions, settings))
        if threads:
            import torch

            torch.set_num_threads(threads)
        if dry_run:
            _tell(run, options, start, data or [])
            return
        if not data or out is None:
            raise typer.BadParameter("a run needs --data and --out; --dry-run does without")
        _log_to_terminal()
        from supir.training.runs import Request, open_run

        request = Request(
            options=options, data=tuple(data), weights=tuple(weight) if weight else None, out=out, start=start,
            negatives=negatives, heldout=heldout,
        )  # fmt: skip
        opened = open_run(request, metrics=_metrics(), minutes=minutes)
        product = opened.train()
        if not opened.trainer.accelerator.is_main_process:
            return
        if product is None:
            text = f"stopped after {minutes:g} minutes; the same command continues {out}"
            console.print(f"{text}, and supir train --export {out} writes its model as far as it is", markup=False)
            return
        typer.echo(f"wrote {product}; use it with: supir restore PHOTO --model {product}")


def _make_negatives(
    data: list[Path] | None, out: Path | None, start: Path | None, settings: list[str] | None, strange: list[str]
) -> None:
    from supir.training.negatives import NegativeOptions, negatives_run

    making = NegativeOptions(**settings_of(NegativeOptions, settings))
    if strange:
        raise typer.BadParameter(
            f"{', '.join(strange)}: not of the run negatives, which takes --data, --from and --set"
        )
    if not data or out is None:
        raise typer.BadParameter("negatives need --data and --out")
    _log_to_terminal()
    made = negatives_run(data, out, start, making)
    use = f"; use it with: supir train RUN --negatives {made}" if made == out else ""
    typer.echo(f"wrote {made}{use}")


def _log_to_terminal() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)


def _show_runs() -> None:
    from supir.training.negatives import NegativeOptions
    from supir.training.recipes import RUNS, StageOptions, named_run

    shown = ("steps", "batch", "crop", "learning_rate", "mixed_precision")
    table = Table("run", *shown, title="named runs", title_justify="left")
    for name in RUNS:
        options = named_run(name)
        table.add_row(name, *(str(getattr(options, field)) for field in shown))
    console = Console()
    console.print(table)
    for kind, title in ((StageOptions, "what may be set"), (NegativeOptions, "of the run negatives")):
        fields = Table("--set", "unset", "", title=title, title_justify="left")
        for name, field in kind.fields().items():
            fields.add_row(name, str(field.default), field.doc + f" ({field.allowed})" * bool(field.allowed))
        console.print(fields, markup=False)


def _tell(run: str, options: StageOptions, start: Path | None, data: list[Path]) -> None:
    from supir.training.dry_run import outlook
    from supir.training.photographs import open_photographs

    photographs = open_photographs(data) if data else None
    found = outlook(options, start=start, photographs=photographs)
    console = Console()
    console.print(_facts(run, found))
    console.print(_memory(found))
    if found.measured:
        console.print(f"Pace: {found.samples_per_second:.2f} samples a second, of two steps on this machine.")
    else:
        console.print(
            "Nothing was run: parameters are on the meta device. Activations are what autograd keeps in one pass there;"
            " buffers of kernels and of communication come on top. Shards are those of FSDP."
        )


def _facts(run: str, found: DryRun) -> Table:
    table = Table("", "", title=run, title_justify="left", show_header=False)
    options, epochs = found.options, found.epochs
    table.add_row("steps", f"{options.steps:,}")
    table.add_row("samples a step", f"{found.global_batch:,} of {options.crop} px, in each process")
    if epochs is not None:
        table.add_row("pictures, epochs", f"{found.num_pictures:,}, {epochs:,.1f}")
    for title, counts in (("learning", found.learning), ("frozen", found.frozen)):
        table.add_row(f"{title} parameters", f"{sum(counts.values()):,}")
        for name, number in counts.items():
            table.add_row(f"  {name}", f"{number:,}")
    return table


def _memory(found: DryRun) -> Table:
    shards = (1,) if found.measured else SHARDS
    titles = [f"of {number}" if number > 1 else "alone" for number in shards]
    table = Table("memory of a process, GB", *titles, title_justify="left")
    memories = [found.memory(number) for number in shards]
    for name in memories[0]:
        table.add_row(name, *(f"{memory[name] / 1e9:.3f}" for memory in memories))
    return table


def _metrics() -> dict[str, Any]:
    """The measures of ``supir.evaluation`` that compare with an original and need no weights, over batches."""
    from supir.evaluation import metrics

    def over_batches(measure: Any) -> Any:
        return lambda found, truth: sum(measure(a, b) for a, b in zip(found, truth, strict=True)) / len(found)

    return {name: over_batches(getattr(metrics, name)) for name in ("psnr", "ssim", "haar_psi")}
