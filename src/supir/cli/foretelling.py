"""What is said before pictures are restored: their sizes, and how long it will take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from supir.cli.errors import one_line
from supir.errors import ImageError
from supir.jobs.job import Job
from supir.jobs.model import Model

if TYPE_CHECKING:
    from supir.planner.kept import KeptCosts

MOST = 200
"""Pictures of which the time is foretold; of more the headers alone would take long."""
NAMED = 3
"""Pictures that are told one by one."""


def foretell(console: Console, jobs: Sequence[Job], model: Model, scale_said: bool) -> None:
    """Say what will become of the pictures and how long that takes; nothing of those that cannot be read.

    Args:
        console: where.
        jobs: what will be made.
        model: the weights, which are not loaded for it.
        scale_said: whether somebody has said the scale; else one that was made smaller is told.

    Raises:
        OptionError: the device is not here.
        WeightsError: the model folder cannot be used.
    """
    if not jobs or len(jobs) > MOST:
        return
    from supir.weights.silence import silence_libraries

    silence_libraries()  # first: they complain while they are imported
    from supir.planner.kept import KeptCosts, kept_rate
    from supir.weights.model_folder import BUNDLED_MODEL

    device = model.placed().devices[0]
    folder = model.folder or BUNDLED_MODEL
    costs = KeptCosts(folder, model.networks, device.split(":")[0])
    rate = kept_rate(costs.key, device, costs.dtype)
    shown, seconds = [], 0.0
    for job in jobs:
        found = _foretold(job, costs, rate, scale_said, model)
        if found is not None:
            shown.append(found[0])
            seconds += found[1]
    if len(shown) > NAMED:
        shown = [f"{len(shown)} pictures"]
    if shown:
        text = f"{'; '.join(shown)}, {about(seconds)}"
        console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)


def _foretold(job: Job, costs: KeptCosts, rate: float, scale_said: bool, model: Model) -> tuple[str, float] | None:
    """(from which size to which, seconds) of one picture."""
    from supir.image import read_size, working_size
    from supir.planner.plan import Passes
    from supir.restoration.restorer import size_multiple

    try:
        width, height = read_size(job.source)
    except ImageError:
        return None
    options = job.options
    multiple = size_multiple(costs.networks.components["autoencoder"])
    size = working_size(width, height, options.scale, options.min_size, multiple)
    passes = Passes(costs, options, size.padded_width, size.padded_height)
    work = passes.work(size.output_width * size.output_height)
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
