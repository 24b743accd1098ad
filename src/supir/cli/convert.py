"""`supir convert`: SDXL and a published SUPIR file into a model folder. Nothing heavy is imported before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from supir.cli.errors import exit_on_error, or_usage_error


def convert(
    sdxl: Annotated[
        Path, typer.Argument(help="SDXL: a .safetensors file, a .ckpt of tensors alone, or a diffusers folder.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model folder to write.", show_default=False)],
    supir: Annotated[
        Path | None,
        typer.Argument(help="A published SUPIR file, likewise. Unset: the first file holds both.", show_default=False),
    ] = None,
    vae: Annotated[
        Path | None,
        typer.Option(help="A file or folder whose autoencoder is taken instead of the base's.", show_default=False),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="An SDXL folder or file whose text towers are taken instead.", show_default=False),
    ] = None,
    prediction_type: Annotated[
        str | None,
        typer.Option(
            help="What the UNet predicts: epsilon, v_prediction. Unset: what the files say.", show_default=False
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the weights written: float16, bfloat16, float32.", show_default=False)
    ] = None,
    lenient: Annotated[
        bool,
        typer.Option("--lenient", help="For training: SUPIR's parts begin anew where no file has them."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model folder that exists, and nothing else.")
    ] = False,
) -> None:
    """Turn SDXL and a published SUPIR file into a model folder for `supir restore --model`.

    Nothing in the files is executed. Your files keep their own licences: the published SUPIR weights are not for
    commercial use.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    with exit_on_error(console):
        from supir.weights.convert import convert as convert_files

        columns = BarColumn(), DownloadColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("", total=None)
            report = or_usage_error(
                convert_files,
                sdxl,
                supir,
                output,
                vae=vae,
                text=text,
                prediction_type=prediction_type,
                strict=not lenient,
                overwrite=overwrite,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
                **({} if dtype is None else {"dtype": dtype}),
            )
        typer.echo(report.summary())
        typer.echo(f"wrote {output}; use it with: supir restore PHOTO --model {output}")
