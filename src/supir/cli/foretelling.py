"""What is said before pictures are restored: their sizes, and how long it will take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from supir.cli.errors import one_line, say
from supir.cli.words import said
from supir.errors import ImageError
from supir.jobs.job import Job
from supir.jobs.model import Model

if TYPE_CHECKING:
    from supir.planner.kept import KeptCosts

MOST = 200
"""Pictures that are looked at; of more, so many that are spread over all, since the headers alone would take long."""
NAMED = 3
"""Pictures that are told one by one."""


def foretell(console: Console, jobs: Sequence[Job], model: Model, scale_said: bool, at_once: int = 1) -> None:
    """Say what will become of the pictures and how long that takes; nothing of those that cannot be read.

    Args:
        console: where.
        jobs: what will be made.
        model: the weights, which are not loaded for it.
        scale_said: whether somebody has said the scale; else one that was made smaller is told.
        at_once: devices that work beside each other; workers of one processor share what it reaches.

    Raises:
        OptionError: the device is not here.
        WeightsError: the model folder cannot be used.
    """
    looked_at = jobs[:: math.ceil(len(jobs) / MOST)] if jobs else []
    if not looked_at:
        return
    from supir.planner.kept import KeptCosts, kept_rate
    from supir.weights.model_folder import BUNDLED_MODEL

    device = model.placed().devices[0]
    folder = model.folder or BUNDLED_MODEL
    costs = KeptCosts(folder, model.networks, device.split(":")[0], quiet=True)
    rate = kept_rate(costs.key, device, costs.dtype)
    shown, seconds = [], 0.0
    for job in looked_at:
        found = _foretold(job, costs, rate, scale_said, model)
        if found is not None:
            shown.append(found[0])
            seconds += found[1]
    share = len(looked_at) / len(jobs)
    if len(shown) > NAMED:
        shown = [f"{round(len(shown) / share)} pictures"]
    if shown:
        text = f"{'; '.join(map(said, shown))}, {said(about(seconds / share / at_once))}"
        say(console, one_line(text))


def _foretold(job: Job, costs: KeptCosts, rate: float, scale_said: bool, model: Model) -> tuple[str, float] | None:
    """(from which size to which, seconds) of one picture."""
    from supir.image import read_size
    from supir.planner.plan import size_on, work_on

    try:
        width, height = read_size(job.source)
    except ImageError:
        return None
    options = job.options
    size = size_on(costs, options, width, height)
    work = work_on(costs, options, width, height, model.first_models)
    text = f"{width} x {height} to {size.output_width} x {size.output_height}"
    usual = model.options().scale
    if not scale_said and options.scale < usual:
        text += f" (at scale {options.scale:g}, since the result would be very large; --scale says another)"
    return text, sum(work.values()) / rate


def about(seconds: float) -> str:
    """A time as people say it: "about 8 minutes"."""
    for unit, length in (("hour", 3600.0), ("minute", 60.0)):
        if seconds >= 1.75 * length or (unit == "minute" and seconds >= 55):
            number = round(seconds / length)
            return f"about {number} {unit}{'s' * (number != 1)}"
    number = max(5, 5 * round(seconds / 5))
    return f"about {number} seconds"
