"""How every command ends early: a sentence and an exit code; and one voice, ours, while it runs."""

from __future__ import annotations

import logging
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


def quiet_libraries() -> None:
    """No bars, notices or complaints of the libraries we stand on."""
    # torchao, where it is installed, complains of GPUs that are not there.
    for name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("pyvips").setLevel(logging.WARNING)
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()  # a command has one bar, over everything
        library.set_verbosity_error()


@contextmanager
def sentences(console: Console) -> Iterator[None]:
    """Turn what ends a command early into a sentence and an exit code, and warnings into sentences."""

    def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
        console.print(f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    with warnings.catch_warnings():
        for notice_to_developers in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", notice_to_developers)
        warnings.showwarning = show_warning
        try:
            yield
        except KeyboardInterrupt:
            console.print("interrupted; nothing half-written is left")
            raise typer.Exit(INTERRUPTED) from None
        except SupirError as error:
            console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(FAILED) from None
