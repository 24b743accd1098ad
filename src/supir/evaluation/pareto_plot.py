"""The perception-distortion plane: where each sweep of an option runs, and where the presets lie in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from supir.errors import MissingExtraError
from supir.evaluation.metrics import METRICS
from supir.evaluation.summary import Score, mean_values
from supir.files import written_whole

AXES = (("psnr", "niqe"), ("psnr", "efficientnet_lite0_distance"))
"""Panels: fidelity to the right, perception upward."""
_COLOURS = ("#2a7f62", "#b5482f", "#3b5b92", "#8a6d1d")


def draw_frontier(
    scores: Sequence[Score], recipe: str, curves: Mapping[str, Sequence[str]], points: Sequence[str], path: Path
) -> Path:
    """Write a picture of one recipe's means as SVG; returns its path.

    ``curves`` are sweeps by name, with their methods in order; ``points`` methods that are shown alone.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "evaluate", "a plot of the ablation")
    matplotlib = import_module("matplotlib")
    figure_kind = import_module("matplotlib.figure").Figure
    means = {name: mean_values(scores, recipe, name) for name in [*points, *(m for c in curves.values() for m in c)]}
    # The same numbers give the same file: ids are salted with a constant, and no date is written.
    with matplotlib.rc_context({"svg.hashsalt": "supir", "font.size": 9, "axes.spines.top": False}):
        figure = figure_kind(figsize=(11, 4.8), layout="constrained")
        for axes, (across, upward) in zip(figure.subplots(1, len(AXES)), AXES, strict=True):
            _panel(axes, means, curves, points, across, upward)
        figure.suptitle(f"{recipe}: better is up and to the right")
        figure.axes[0].legend(loc="best", frameon=False)
        with written_whole(path) as stream:
            figure.savefig(stream, format="svg", metadata={"Date": None})
    return path


def _panel(
    axes: Any,
    means: Mapping[str, Mapping[str, float]],
    curves: Mapping[str, Sequence[str]],
    points: Sequence[str],
    across: str,
    upward: str,
) -> None:
    """One pair of measures; a method without both is left out."""

    def known(methods: Sequence[str]) -> list[str]:
        return [name for name in methods if across in means[name] and upward in means[name]]

    for colour, (title, methods) in zip(_COLOURS, curves.items(), strict=False):
        shown = known(methods)
        axes.plot([means[m][across] for m in shown], [means[m][upward] for m in shown], ".-", color=colour, label=title)
        for method in dict.fromkeys([shown[0], shown[-1]] if shown else []):
            place = means[method][across], means[method][upward]
            axes.annotate(method.removeprefix(f"{title} "), place, xytext=(4, 4), textcoords="offset points")
    for method in known(points):
        place = means[method][across], means[method][upward]
        axes.plot(*place, "k*", markersize=9)
        axes.annotate(method, place, xytext=(5, -10), textcoords="offset points", weight="bold")
    for name, place, turn in (
        (across, axes.set_xlabel, axes.invert_xaxis),
        (upward, axes.set_ylabel, axes.invert_yaxis),
    ):
        metric = METRICS[name]
        place(f"{metric.title} {'→' if metric.higher_is_better else '(lower is better)'}")
        if not metric.higher_is_better:
            turn()
