"""What each way to evaluate less costs and changes, beside the plain way, on degraded copies of good pictures.

    python bench/fewer_evaluations.py --data DATA --out OUT                     # every picture, 50 steps
    python bench/fewer_evaluations.py --data DATA --out OUT --pictures 1 --side 128    # to try it

Each row is the preset with the options that the table names. Its cost is counted, not timed: the operations of the
parts of adaptor and UNet that its steps run, at the size of the first picture, in units of one evaluation of both for
one branch of text guidance; the plain row, of 50 steps and two branches, costs 100. Quality is against the original
(PSNR, distance, NIQE), change against the result of the plain row. Writes OUT/evaluations.md, .json and .svg; run again
it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from supir import SupirPipeline, find_pictures, read
from supir.evaluation.ablation import Variant
from supir.evaluation.benchmark import machine, run_benchmark
from supir.evaluation.metrics import METRICS, open_measures
from supir.evaluation.summary import Score, finite_means, mean_values, score_pictures
from supir.files.report import markdown_table
from supir.image import working_size
from supir.options import RestoreOptions
from supir.planner.costs import Costs, networks_of
from supir.planner.plan import make_plan
from supir.restoration.restorer import size_multiple
from supir.restoration.schedules import noise_schedule

RECIPE, PRESET, PLAIN = "blur2_sr4", "quality", "plain"
QUALITY = ("psnr", "efficientnet_lite0_distance", "niqe")
CHANGE = ("psnr", "efficientnet_lite0_distance")


def rows(plain: RestoreOptions, own: RestoreOptions) -> list[Variant]:
    """The plain row, each device at several strengths, some together, and the preset as the model has it."""
    steps, sigmas = plain.num_steps, noise_schedule(plain).sigmas

    def level(share: float) -> float:
        """The noise level between the first steps, this share of them, and the rest."""
        first = max(1, round(share * steps))
        return float((sigmas[first - 1] * sigmas[first]).sqrt())

    def row(study: str, name: object, **options: Any) -> Variant:
        return Variant(study=study, name=str(name), options=options)

    late, early = {"text_guidance_high": level(0.5)}, {"text_guidance_low": level(0.5)}
    middle = {"text_guidance_low": level(0.75), "text_guidance_high": level(0.25)}
    fewer = sorted({max(2, round(steps * share)) for share in (0.08, 0.16, 0.32, 0.5)}, reverse=True)
    found = [row(PLAIN, steps)]
    found += [row("steps", number, num_steps=number) for number in fewer]
    found += [row("second-order", number, solver="dpmpp_2m", num_steps=number) for number in fewer]
    found += [row("log-snr", number, solver="dpmpp_2m", num_steps=number, grid="log_snr") for number in fewer]
    found += [row("guided", "late half", **late), row("guided", "early half", **early)]
    found += [row("guided", "middle half", **middle), row("guided", "never", text_guidance=1.0)]
    found += [row("adaptor-every", number, adaptor_every=number) for number in (2, 3, 5, 10)]
    found += [row("deep-cache-every", number, deep_cache_every=number) for number in (2, 3, 5, 10)]
    found += [row("together", f"every {number}", deep_cache_every=number, **middle) for number in (2, 3)]
    found += [
        row("together", f"second-order {number} every 2", solver="dpmpp_2m", num_steps=number, deep_cache_every=2)
        for number in fewer[:2]
    ]
    unset = {name: "off" if value is None else value for name, value in asdict(own).items()}
    changed = {name: value for name, value in unset.items() if getattr(own, name) != getattr(plain, name)}
    changed.pop("min_size", None)  # of every row
    return [*found, row("own", PRESET, **changed)]


def cost(costs: Costs, options: RestoreOptions, width: int, height: int) -> float:
    """Evaluations of both networks for one branch that the sampling of a picture of this size amounts to."""
    multiple = size_multiple(costs.networks.components["autoencoder"])
    size = working_size(width, height, options.scale, options.min_size, multiple)
    return make_plan(costs, options, size.padded_width, size.padded_height).evaluations


def changes(out: Path, title: str, plain: str) -> dict[str, float]:
    """Means of the measures between the results of a row and those of the plain row."""
    ready, _ = open_measures(CHANGE)
    scored = score_pictures(find_pictures([str(out / RECIPE / title)]), out / RECIPE / plain, ready)
    return finite_means(one.values for one in scored)


def changed(options: RestoreOptions, own: RestoreOptions) -> dict[str, Any]:
    """The options that are not the preset's; the scale is the recipe's."""
    return {name: v for name, v in asdict(options).items() if v != getattr(own, name) and name != "scale"}


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Rows as markdown."""
    head = ["row", "evaluations", *(METRICS[name].title for name in QUALITY)]
    head += [f"{METRICS[name].title} to plain" for name in CHANGE] + ["options over the preset"]
    cells = []
    for each in found:
        values = [_cell(each["quality"], name) for name in QUALITY] + [_cell(each["change"], name) for name in CHANGE]
        options = " ".join(f"{name}={_short(value)}" for name, value in each["changed"].items()) or "–"
        cells.append([each["title"], f"{each['evaluations']:.1f}", *values, options])
    return markdown_table([head, *cells])


def _cell(values: Mapping[str, float], name: str) -> str:
    return f"{values[name]:.{METRICS[name].decimals}f}" if name in values else "–"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def draw(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Cost across, measures upward, a line a device; the plain row is a star."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = [("quality", name) for name in QUALITY[1:]] + [("change", "efficientnet_lite0_distance")]

    def measured(each: Mapping[str, Any], kind: str, name: str) -> bool:
        return math.isfinite(each[kind].get(name, math.nan))

    # Pictures may be too small for a measure.
    panels = [panel for panel in panels if any(measured(each, *panel) for each in found)]
    with matplotlib.rc_context({"svg.hashsalt": "supir", "font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(14, 4.8), layout="constrained")
        for axes, (kind, name) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for study in dict.fromkeys(each["study"] for each in found):
                shown = sorted(
                    (each["evaluations"], each[kind][name])
                    for each in found
                    if each["study"] == study and measured(each, kind, name)
                )
                style = {PLAIN: "k*", "own": "kD"}.get(study, ".-")
                axes.plot([cost for cost, _ in shown], [value for _, value in shown], style, label=study)
            axes.set_xscale("log")
            axes.set_xlabel("evaluations")
            to = " to the plain result" if kind == "change" else ""
            axes.set_ylabel(f"{METRICS[name].title}{to} (lower is better)")
        figure.axes[0].legend(loc="best", frameon=False)
        new = path.with_suffix(".new")
        figure.savefig(new, format="svg", metadata={"Date": None})
        new.replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of good pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder to write or go on with")
    parser.add_argument("--model", help="a model folder; unset: the bundled model")
    parser.add_argument("--pictures", type=int, help="take so many")
    parser.add_argument("--side", type=int, help="keep the middle of each, at most so many pixels; min_size too")
    parser.add_argument("--steps", type=int, default=50, help="of the plain row (default 50)")
    parser.add_argument("--guidance", type=float, default=2.0, help="text guidance of the plain row (default 2)")
    parser.add_argument("--start-sigma", default=None, help="a level, or off: pure noise; unset: the preset's")
    chosen = parser.parse_args(arguments)
    pipeline = SupirPipeline.from_pretrained(chosen.model)
    pipeline.set_progress_bar_config(disable=True)
    start = None if chosen.start_sigma is None else {"off": "off"}.get(chosen.start_sigma) or float(chosen.start_sigma)
    common = {"num_steps": chosen.steps, "text_guidance": chosen.guidance, "text_guidance_start": "off"}
    common["start_sigma"] = start
    if chosen.side is not None:
        common["min_size"] = min(chosen.side, pipeline.options(PRESET).min_size)
    plain, own = pipeline.options(PRESET, **common), pipeline.options(PRESET)
    variants = rows(plain, own)
    methods = {each.title: each.method(pipeline, PRESET, **common) for each in variants}
    measures, absent = open_measures(QUALITY)
    pictures = find_pictures([chosen.data])[: chosen.pictures]
    scores: list[Score] = []
    for one in run_benchmark(
        pictures, chosen.out, list(methods.values()), measures, recipes=[RECIPE], side=chosen.side
    ):
        if isinstance(one, str):
            print(f"left out: {one}")
        else:
            scores.append(one)
    low = read(find_pictures([str(chosen.out / RECIPE / "lq")])[0])
    costs = Costs(networks_of(pipeline.source, pipeline.networks))
    found = []
    for each in variants:
        options = pipeline.options(PRESET, **{**common, **each.options}).replace(scale=4.0)
        found.append(
            {
                "title": each.title,
                "study": each.study,
                "evaluations": cost(costs, options, low.width, low.height),
                "quality": mean_values(scores, RECIPE, each.title),
                "change": {} if each.study == PLAIN else changes(chosen.out, each.title, variants[0].title),
                "changed": {
                    name: v for name, v in asdict(options).items() if v != getattr(own, name) and name != "scale"
                },
                "options": asdict(options),
            }
        )
    record = {"recipe": RECIPE, "preset": PRESET, "rows": found, **machine()}
    (chosen.out / "evaluations.json").write_text(json.dumps(record, indent=1) + "\n")
    (chosen.out / "evaluations.md").write_text(table(found) + "\n")
    draw(found, chosen.out / "evaluations.svg")
    print(table(found), *(f"\nnot measured: {name}: {reason}" for name, reason in absent.items()))


if __name__ == "__main__":
    main()
