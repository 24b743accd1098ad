"""`supir audit`: what a result kept of its input, and what it invented; and what that is calibrated by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from supir.cli.arguments import AsJson, Device, ModelFolder, Photos, Quiet, fields_in, model_of, option, with_options
from supir.cli.errors import FAILED, check_interrupted, exit_on_error, one_line, say
from supir.errors import ImageWriteError
from supir.files import check_absent
from supir.options.audit import AuditOptions

PAIR = "pair"
"""The command that is meant where none is named."""
CalibrationFile = Annotated[
    Path | None,
    option("What `supir audit calibrate` has made. Unset: that of the bundled model.", exists=True, dir_okay=False),
]


class PairOrCommand(TyperGroup):
    """``supir audit BEFORE AFTER`` is ``supir audit pair BEFORE AFTER``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """With ``pair`` in front where a picture comes first."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [PAIR, *args]
        return super().parse_args(ctx, args)


audit_app = typer.Typer(
    cls=PairOrCommand,
    no_args_is_help=True,
    add_completion=False,
    help="Say what a result kept of its input, what was reconstructed and what was invented: supir audit BEFORE AFTER.",
)


@audit_app.command(PAIR)
@with_options(AuditOptions, only=tuple(name for name in AuditOptions.fields() if name != "on_doubt"))
def pair(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The picture as it was given.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="What was made of it, by whatever program.")],
    report: Annotated[
        Path | None, option("Where to write the report. Unset: AFTER.audit.json beside the result.", "--report")
    ] = None,
    overlay: Annotated[
        Path | None, option("Where to write the picture of the map. Unset: AFTER.audit.png.", "--overlay")
    ] = None,
    values: Annotated[
        Path | None,
        option("Also write the map itself, 16 bits of grey: how many levels a place is expected to be off.", "--map"),
    ] = None,
    calibration: CalibrationFile = None,
    device: Device = None,
    overwrite: Annotated[bool, option("Replace files that exist; never an input.", "--overwrite")] = False,
    as_json: AsJson = False,
    **overrides: Any,
) -> None:
    """Audit a pair: writes a report and a picture, prints a sentence. `supir audit BEFORE AFTER` does the same.

    The exit code is 1 where the result is past a limit, and 2 where the two are no pair.
    """
    with exit_on_error() as console:
        options = AuditOptions.given(fields_in(overrides, AuditOptions))
        report = report or after.with_name(f"{after.stem}.audit.json")
        overlay = overlay or after.with_name(f"{after.stem}.audit.png")
        _check_free([report, overlay, values], [before, after], overwrite=overwrite)
        from supir import image
        from supir.audit import Calibration, audit, check_asked, open_witness

        for target in filter(None, (overlay, values)):
            image.check_target(target, image.read_size(after)[::-1])
        chosen = Calibration.load(calibration) if calibration else Calibration.load()
        check_asked(options, chosen)  # before any weights are read
        found = audit(
            before, after, options, witness=open_witness(device), calibration=chosen,
            on_version=lambda done: check_interrupted(),
        )  # fmt: skip
        found.write(report, overlay, values)
        if as_json:
            typer.echo(json.dumps(found.as_json()))
        else:
            typer.echo(f"{one_line(str(after))}: {one_line(str(found))}")
        for clause in found.passed:
            say(console, f"past a limit: {clause}", "red")
    if found.passed:
        raise typer.Exit(FAILED)


@audit_app.command()
def calibrate(
    photos: Photos,
    output: Annotated[Path, option("The calibration to write.", "--output", "-o", dir_okay=False)],
    model: ModelFolder = None,
    device: Device = None,
    recipes: Annotated[str | None, option("Degradations, with commas. Unset: eight of them.", metavar="NAMES")] = None,
    draws: Annotated[int, option("Degradations that each photograph goes through, in turn.", min=1, max=64)] = 4,
    refit: Annotated[
        bool,
        option("Fit the map anew to a third of the photographs, and promise by the others.", "--refit"),
    ] = False,
    overwrite: Annotated[bool, option("Replace a calibration that exists.", "--overwrite")] = False,
    quiet: Quiet = False,
) -> None:
    """Calibrate with good photographs of your own, 20 or more that the model was not trained on.

    Each is cut, made bad by recipes, restored and held against what it was. Without --refit the bundled calibration's
    map is kept, and the thresholds of its promises are taken from all photographs.
    """
    with exit_on_error() as console:
        _check_free([output], [], overwrite=overwrite)
        from supir import image
        from supir.audit.calibrating import RECIPES, made
        from supir.cli.arguments import known_names
        from supir.degradation.recipes import RECIPES as KNOWN

        chosen = tuple(known_names(recipes, KNOWN, "recipe")) if recipes else RECIPES
        paths = image.find_pictures(photos)
        restorer = model_of(model, device).open()

        def on_done(done: int, total: int) -> None:
            check_interrupted()
            if not quiet and (done % 10 == 0 or done == total):
                say(console, f"{done} of {total} restorations")

        found = made(paths, restorer, recipes=chosen, draws=draws, refit=refit, device=device, on_done=on_done)
        found.save(output)
        if not quiet:
            say(console, f"{output}: promises by {len(found.scores)} photographs")


def _check_free(targets: list[Path | None], inputs: list[Path], *, overwrite: bool) -> None:
    """Refuse to write over an input, and over anything without ``--overwrite``."""
    for target in filter(None, targets):
        if any(path.exists() and target.exists() and path.samefile(target) for path in inputs):
            raise ImageWriteError(f"{target} is an input and would be overwritten; name another file", target)
    check_absent(targets, overwrite=overwrite)
