"""How every command ends early: a sentence and an exit code."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from supir.errors import OptionError, SupirError

FAILED, INTERRUPTED = 1, 130
"""Exit codes; wrong usage is typer's own, 2."""


def usage(function: Any, *arguments: Any, **named: Any) -> Any:
    """Call a function whose `OptionError` is the user's wrong usage."""
    try:
        return function(*arguments, **named)
    except OptionError as error:
        raise typer.BadParameter(str(error)) from error


def one_line(text: str) -> str:
    """A text, names of files in it, as it may be shown: line ends and what commands a terminal are written out."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def show_warning(console: Console, message: Warning | str) -> None:
    """One line for a warning."""
    console.print(f"warning: {one_line(str(message))}", style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def sentences(console: Console) -> Iterator[None]:
    """Turn what ends a command early into a sentence and an exit code, and warnings into sentences."""

    with warnings.catch_warnings():
        for notice_to_developers in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", notice_to_developers)
        warnings.showwarning = lambda message, *_, **__: show_warning(console, message)
        try:
            yield
        except KeyboardInterrupt:
            console.print("interrupted; nothing half-written is left")
            raise typer.Exit(INTERRUPTED) from None
        except SupirError as error:
            console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(FAILED) from None
