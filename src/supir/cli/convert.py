"""`supir convert`: SDXL and a published SUPIR file into a model folder. Nothing heavy is imported before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from supir.cli.arguments import option
from supir.cli.errors import exit_on_error
from supir.errors import OptionError


def convert(
    sdxl: Annotated[
        Path, typer.Argument(help="SDXL: a .safetensors file, a .ckpt of tensors alone, or a diffusers folder.")
    ],
    output: Annotated[Path, option("The model folder to write.", "--output", "-o")],
    supir: Annotated[
        Path | None, typer.Argument(help="A published SUPIR file, likewise. Unset: the first file holds both.")
    ] = None,
    vae: Annotated[Path | None, option("A file or folder whose autoencoder is taken instead of the base's.")] = None,
    text: Annotated[Path | None, option("An SDXL folder or file whose text towers are taken instead.")] = None,
    mix: Annotated[
        str | None,
        option(
            "Another SUPIR file and its share of SUPIR's weights, as SUPIR-v0F.ckpt:0.5: between faithful and vivid.",
            metavar="FILE:SHARE",
        ),
    ] = None,
    apart: Annotated[
        bool,
        option("Write no weights: the folder says where yours lie, and they are joined when it is loaded.", "--apart"),
    ] = False,
    prediction_type: Annotated[
        str | None, option("What the UNet predicts: epsilon, v_prediction. Unset: what the files say.")
    ] = None,
    dtype: Annotated[str | None, option("Of the weights written: float16, bfloat16, float32.")] = None,
    lenient: Annotated[
        bool, option("For training: SUPIR's parts begin anew where no file has them.", "--lenient")
    ] = False,
    overwrite: Annotated[bool, option("Replace a model folder that exists, and nothing else.", "--overwrite")] = False,
) -> None:
    """Turn SDXL and a published SUPIR file into a model folder for `supir restore --model`.

    Nothing in the files is executed. Your files keep their own licences: the published SUPIR weights are not for
    commercial use.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    with exit_on_error() as console:
        from supir.weights.convert import convert as convert_files

        columns = BarColumn(), DownloadColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("", total=None)
            of_type: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
            report = convert_files(
                sdxl, supir, output, vae=vae, text=text, mix=_share(mix), prediction_type=prediction_type, apart=apart,
                strict=not lenient,
                overwrite=overwrite, on_progress=lambda done, total: bar.update(task, completed=done, total=total),
                **of_type,
            )  # fmt: skip
        typer.echo(report.summary())
        typer.echo(f"wrote {output}; use it with: supir restore PHOTO --model {output}")


def _share(text: str | None) -> tuple[Path, float] | None:
    """What ``--mix`` says.

    Raises:
        OptionError: it is no file and share.
    """
    if text is None:
        return None
    name, _, share = text.rpartition(":")
    try:
        return Path(name), float(share)
    except ValueError:
        raise OptionError(f"--mix is {text!r}; write FILE:SHARE, as SUPIR-v0F.ckpt:0.5") from None
