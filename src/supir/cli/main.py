"""The command `supir`. Each of its commands is a module, imported when it is used: `supir --help` answers at once.

Exit codes: 0 all done, 1 something failed (the other pictures are done all the same), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from supir import __version__
from supir.cli.words import said

COMMANDS = {
    "restore": "Restore photos.",
    "plan": "Say which tiles, how much memory and how long `supir restore` will take with the same options.",
    "batch": "Restore many pictures into a folder, resumably.",
    "caption": "Describe photos, as `supir restore --captioner` would before it restores them.",
    "serve": "Serve restorations over HTTP, with a queue that outlives the process.",
    "web": "Restore photos in the browser: drop one in, look, choose, compare, download.",
    "train": "Train a part of a model, from its named run to a model folder for `supir restore --model`.",
    "degrade": "Make low-quality pictures of good ones, to restore them and hold the results against what was there.",
    "evaluate": "Score pictures, each alone and against its original where --reference holds one of its size.",
    "verify": "Say of pictures whether and how they are marked as made with AI, and whether that still holds.",
    "audit": "Say what a result kept of its input, what was reconstructed and what was invented: supir audit BEFORE"
    " AFTER.",
    "convert": "Turn SDXL and a published SUPIR file into a model folder for `supir restore --model`.",
    "presets": "List the presets and the values that each comes to with a model; every value can be overridden by its"
    " option.",
    "data": "Build data sets for training, and look at them.",
    "benchmark": "Compare methods over many pictures: tables, a page of pictures, resumable.",
    "study": "Ask people which result is better or best: blind, in the browser.",
}
"""With the first sentence of the help of each. ``supir.cli.NAME`` holds it, as ``NAME`` or as a group, ``NAME_app``."""


def load_command(name: str) -> Any:
    """The click command of one of ``COMMANDS``."""
    module = import_module(f"supir.cli.{name}")
    found = getattr(module, f"{name}_app", None)
    if found is None:
        found = typer.Typer(add_completion=False)
        found.command(name)(getattr(module, name))
    made = typer.main.get_command(found)
    first, gap, rest = (made.help or "").partition("\n\n")
    made.help = said(" ".join(first.split())) + gap + rest
    return made


class Commands(TyperGroup):
    """Lists the commands without their modules."""

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        listed = {name: TyperCommand(name, help=text) for name, text in COMMANDS.items()}
        self.commands = {**listed, **self.commands}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """As it is listed: its first sentence alone, in the reader's language."""
        if cmd_name in COMMANDS:
            return TyperCommand(cmd_name, help=said(COMMANDS[cmd_name]))
        return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As typer does, in the reader's language as far as it is known."""
        self.help = said(door.__doc__ or "")
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """(name, command, the other arguments); here the module is imported."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name in COMMANDS else found, rest


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def main() -> None:
    """The entry point of the console script."""
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
def version() -> None:
    """Print the versions of supir and of what it stands on."""
    from importlib.metadata import version as version_of

    typer.echo(f"supir {__version__}")
    for package in ("torch", "diffusers", "transformers", "pyvips"):
        typer.echo(f"{package} {version_of(package)}")


if __name__ == "__main__":
    main()
