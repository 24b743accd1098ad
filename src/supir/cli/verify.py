"""`supir verify`: what pictures say of how they were made, and what of it holds."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from supir.cli.arguments import Photos, option
from supir.cli.errors import FAILED, check_interrupted, exit_on_error, one_line, show_error
from supir.errors import ImageError


def verify(
    photos: Photos,
    as_json: Annotated[bool, option("Print a list with one object a picture.", "--json")] = False,
) -> None:
    """Say of pictures whether and how they are marked as made with AI, and whether that still holds.

    A mark, the record of how a result was made, whether its pixels are those that were marked, and a C2PA signature.
    The exit code is 0 where every picture is marked and nothing in it contradicts that, else 1.
    """
    with exit_on_error() as console:
        from supir import image

        told, sound = [], True
        for path in image.find_pictures(photos):
            check_interrupted()
            try:
                found = image.verify(path)
            except ImageError as error:
                sound = False
                told.append({"file": str(path), "holds": False, "error": str(error)})
                if not as_json:
                    show_error(console, one_line(str(error)))
                continue
            sound &= found.holds
            told.append(found.as_json())
            if not as_json:
                typer.echo(f"{one_line(str(path))}: {one_line(str(found))}")
        if as_json:
            typer.echo(json.dumps(told))
    if not sound:
        raise typer.Exit(FAILED)
