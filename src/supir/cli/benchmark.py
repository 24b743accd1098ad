"""`supir benchmark`: tables of methods over degraded and over real pictures. Nothing heavy is imported before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from supir.cli.arguments import Device, options_of, settings_of, with_options
from supir.cli.benchmarking import (
    known_recipes,
    methods_from,
    named_methods,
    open_pipeline,
    run_and_write,
)
from supir.cli.errors import exit_on_error, or_usage_error
from supir.files import write_whole
from supir.options import DEFAULT_PRESET, PRESETS, NetworkOptions, RestoreOptions
from supir.weights.silence import silence_libraries

if TYPE_CHECKING:
    from supir.evaluation.ablation import Variant
    from supir.evaluation.summary import Score

benchmark_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Compare methods over many pictures: tables, a page of pictures, resumable.",
)

Data = Annotated[list[str], typer.Option("--data", help="Pictures: a folder, file or glob. May be repeated.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write or go on with.")]
Methods = Annotated[
    str,
    typer.Option(help=f"With commas between: bicubic, preview, real-esrgan, {', '.join(PRESETS)}.", metavar="NAMES"),
]
Measures = Annotated[str | None, typer.Option(help="As in `supir evaluate`. Unset: all that can run.", metavar="NAMES")]
Model = Annotated[
    Path | None, typer.Option(help="A model folder. Unset: the bundled small model.", exists=True, file_okay=False)
]
Pictures = Annotated[int | None, typer.Option(help="Take so many of the pictures. Unset: all.", min=1)]
Side = Annotated[int | None, typer.Option(help="Keep the middle of each, at most so many pixels.", min=96)]
Seed = Annotated[int, typer.Option(help="Of the degradations.", min=0, max=2**31 - 1)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="An option over every preset. May be repeated.", metavar="FIELD=VALUE"),
]
Esrgan = Annotated[
    Path | None, typer.Option(help="Folder of Real-ESRGAN's model for ncnn.", exists=True, file_okay=False)
]
Weights = Annotated[Path | None, typer.Option(help="Folder of weights, as in `supir evaluate`.", exists=True)]
STANDARD = "bicubic,preview,quality"


@benchmark_app.command()
@with_options(NetworkOptions)
def table1(
    data: Data,
    out: Out,
    methods: Methods = STANDARD,
    recipes: Annotated[
        str | None, typer.Option(help="As in `supir degrade --list`. Unset: the paper's five and default.")
    ] = None,
    measures: Measures = None,
    model: Model = None,
    device: Device = None,
    pictures: Pictures = None,
    side: Side = None,
    seed: Seed = 0,
    settings: Settings = None,
    esrgan_models: Esrgan = None,
    weights: Weights = None,
    **of_networks: Any,
) -> None:
    """Degrade good pictures, restore them by each method, score, and print a table as the paper's first.

    Run again it goes on where it was, and makes anew what was made by other weights or options. Writes table.md,
    table.csv, times.md, report.html (pictures to flick between) and record.json, beside all pictures.
    """
    with exit_on_error(console := Console(stderr=True)):
        from supir.degradation.recipes import BENCHMARKS

        names = known_recipes(recipes or ",".join([*BENCHMARKS, "default"]))
        made = methods_from(methods, model, settings, esrgan_models, device, of_networks)
        options: dict[str, Any] = {"recipes": names, "seed": seed, "side": side}
        run_and_write(console, data, pictures, out, made, measures, weights, **options)
        _print_paper(names)


@benchmark_app.command()
@with_options(NetworkOptions)
def real(
    data: Data,
    out: Out,
    methods: Methods = STANDARD,
    measures: Measures = None,
    model: Model = None,
    device: Device = None,
    pictures: Pictures = None,
    scale: Annotated[float, typer.Option(help="Size of the results over the pictures'.", min=0.1, max=16)] = 2.0,
    settings: Settings = None,
    esrgan_models: Esrgan = None,
    weights: Weights = None,
    **of_networks: Any,
) -> None:
    """Restore real low-quality pictures by each method and score them by what needs no original."""
    with exit_on_error(console := Console(stderr=True)):
        from supir.evaluation.benchmark import PHOTOGRAPHS

        made = methods_from(methods, model, settings, esrgan_models, device, of_networks)
        run_and_write(console, data, pictures, out, made, measures, weights, recipes=[PHOTOGRAPHS], scale=scale)


@benchmark_app.command()
@with_options(NetworkOptions)
def ablation(
    data: Data,
    out: Out,
    studies: Annotated[
        str | None,
        typer.Option(
            help="With commas between; unset: all. words, connectors, guidance, encoder, steps, control, text."
        ),
    ] = None,
    trained: Annotated[
        list[str] | None,
        typer.Option(help="A model that was trained otherwise, for a study that needs it.", metavar="NAME=FOLDER"),
    ] = None,
    preset: Annotated[str, typer.Option(help=f"What is varied: {', '.join(PRESETS)}.")] = DEFAULT_PRESET,
    recipes: Annotated[str, typer.Option(help="As in `supir degrade --list`.")] = "blur2_sr4,default",
    measures: Annotated[
        str, typer.Option(help="As in `supir evaluate`.", metavar="NAMES")
    ] = "psnr,ssim,haar_psi,detail_balance,efficientnet_lite0_distance,niqe",
    model: Model = None,
    device: Device = None,
    pictures: Pictures = None,
    side: Side = None,
    seed: Seed = 0,
    settings: Settings = None,
    weights: Weights = None,
    **of_networks: Any,
) -> None:
    """Change one thing at a time, beside what the paper found: its Tables 2b and 2c, Figures 8 and 14, and sweeps.

    Resumes as the other benchmarks do. Beside their files it writes claims.md and a plot of perception against
    distortion for each recipe.
    """
    with exit_on_error(console := Console(stderr=True)):
        silence_libraries()
        from supir.evaluation.ablation import GIVEN, STUDIES, TRAINED, variants

        wanted = studies.split(",") if studies else list(STUDIES)
        for name in wanted:
            if name not in STUDIES:
                raise typer.BadParameter(f"unknown study {name!r}; there are {', '.join(STUDIES)}")
        folders = dict(text.partition("=")[::2] for text in trained or ())
        for name in folders:
            if name not in TRAINED:
                raise typer.BadParameter(f"--trained {name}: there are {', '.join(TRAINED)}")
        chosen, left_out = variants(wanted, folders)
        networks = options_of(NetworkOptions, of_networks)
        pipelines = {name: open_pipeline(Path(folder), device, networks) for name, folder in folders.items()}
        pipelines[GIVEN] = open_pipeline(model, device, networks)
        common = settings_of(RestoreOptions, settings)
        made = named_methods(["bicubic", "preview", preset, *PRESETS], pipelines[GIVEN], **common)
        made += [or_usage_error(variant.method, pipelines[variant.model], preset, **common) for variant in chosen]
        names = known_recipes(recipes)
        options: dict[str, Any] = {"recipes": names, "seed": seed, "side": side}
        scores = run_and_write(console, data, pictures, out, made, measures, weights, **options)
        _write_ablation(out, scores, names, chosen, left_out)


def _write_ablation(
    out: Path, scores: list[Score], recipes: list[str], chosen: Sequence[Variant], left_out: list[str]
) -> None:
    from supir.evaluation.ablation import SWEEPS, claims_table
    from supir.evaluation.pareto_plot import draw_frontier

    text = "\n\n".join(filter(None, [claims_table(scores, recipes), *(f"not run: {each}" for each in left_out)]))
    write_whole(out / "claims.md", text + "\n")
    typer.echo(text + "\n")
    curves = {study: [v.title for v in chosen if v.study == study] for study in SWEEPS}
    curves = {study: titles for study, titles in curves.items() if titles}
    for recipe in recipes if curves else ():
        points = ["bicubic", "preview", *PRESETS]
        typer.echo(f"plot: {draw_frontier(scores, recipe, curves, points, out / f'frontier_{recipe}.svg')}")


def _print_paper(recipes: Sequence[str]) -> None:
    """The paper's own table, over its own pictures, so that the two can be read side by side."""
    from supir.evaluation.benchmark import paper_table1

    rows = paper_table1(recipes)
    if rows:
        typer.echo("The paper's Table 1, over its own pictures at 1024 pixels; PSNR and the like do not compare:\n")
        typer.echo(rows)
