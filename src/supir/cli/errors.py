"""How every command ends early: a sentence and an exit code."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer
from rich.console import Console

from supir.cli.words import said
from supir.errors import OptionError, SupirError
from supir.files import disk_error, sentence

FAILED, INTERRUPTED = 1, 130
"""Exit codes; wrong usage is typer's own, 2."""


def one_line(text: str) -> str:
    """A text, names of files in it, as it may be shown: line ends and what commands a terminal are written out."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def say(console: Console, text: str, style: str = "") -> None:
    """A text as it is, in the reader's language: nothing in it is taken for markup, and no line is broken."""
    console.print(said(text), style=style, markup=False, highlight=False, soft_wrap=True)


def show_warning(console: Console, message: Warning | str) -> None:
    """One line for a warning."""
    say(console, f"warning: {one_line(str(message))}", "yellow")


def show_error(console: Console, message: str) -> None:
    """What went wrong."""
    say(console, f"error: {message}", "red")


_interrupted = threading.Event()


def check_interrupted() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed in this command.

    Python drops the one that arrives while a C library is calling back (libvips logs in that way), and the run would go
    on as if nobody had asked. So whatever takes long calls this again and again.
    """
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


@contextmanager
def _hears_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # there Python allows no handler, nor needs one
        yield
        return
    previous = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        _interrupted.clear()


@contextmanager
def exit_on_error() -> Iterator[Console]:
    """Turn what ends a command early into a sentence and an exit code, and warnings into sentences, on the console that
    is given: standard error. An `OptionError` is wrong usage.
    """
    console = Console(stderr=True)
    with warnings.catch_warnings(), _hears_interrupts():
        for notice_to_developers in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", notice_to_developers)
        warnings.showwarning = lambda message, *_, **__: show_warning(console, message)
        try:
            yield console
        except KeyboardInterrupt:
            say(console, "interrupted; nothing half-written is left")
            raise typer.Exit(INTERRUPTED) from None
        except OptionError as error:
            raise typer.BadParameter(said(str(error))) from error
        except SupirError as error:
            show_error(console, str(error))
            raise typer.Exit(FAILED) from None
        except BrokenPipeError:
            raise  # the reader of our output has gone, which typer knows to end quietly
        except Exception as error:
            # What the disk says ends a command in words, also where a library has wrapped it; any other is a mistake
            # of ours, and its traceback says where.
            if (found := disk_error(error)) is None:
                raise
            show_error(console, sentence(found))
            raise typer.Exit(FAILED) from None
