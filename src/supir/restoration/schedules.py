"""What the options say about noise levels and about strengths over them."""

from __future__ import annotations

import math
from fractions import Fraction

from supir.options import RestoreOptions
from supir.options.regions import options_in, split_regions
from supir.sampling.denoiser import Ramp, linear_in_sigma, within
from supir.sampling.sigmas import (
    REFERENCE_SIGMA_MAX,
    Schedule,
    ddpm_sigmas,
    full_range_sigmas,
    reference_karras_sigmas,
    starting_at,
)
from supir.tensors.arrays import ArrayLike
from supir.tensors.tiling import Layout


def noise_schedule(options: RestoreOptions) -> Schedule:
    """The levels that the options walk down: the public code's, or ours, which go to the lowest level of training.

    With ``start_sigma`` ours spread all steps below it, as ``grid`` says; the public code's schedules are cut there.
    """
    churn = options.s_churn if options.solver == "edm_euler" else 0.0
    start = options.start_sigma
    if options.solver != "reference_dpmpp_2m" and not options.reference_quirks:
        return Schedule(full_range_sigmas(options.num_steps, start, options.grid), s_churn=churn)
    public = reference_karras_sigmas if options.solver == "reference_dpmpp_2m" else ddpm_sigmas
    sigmas = public(options.num_steps)
    return Schedule(sigmas if start is None else starting_at(sigmas, start), s_churn=churn)


def highest_sigma(options: RestoreOptions, schedule: Schedule) -> float:
    """Where ramps begin and the pull toward the input is whole: the level that sampling starts at.

    It is sigma_T of the paper's Algorithm 1. The public code, which always starts at the highest level, has it rounded.
    """
    if options.reference_quirks and options.start_sigma is None:
        return REFERENCE_SIGMA_MAX
    return float(schedule.sigmas[0])


def ramp(at_end: float, at_start: float | None, sigma_max: float) -> Ramp:
    """A strength constant over sigma, or linear from ``at_start`` at ``sigma_max`` to ``at_end`` at none."""
    return linear_in_sigma(at_end, at_end if at_start is None else at_start, sigma_max)


def text_guidance(options: RestoreOptions, sigma_max: float) -> Ramp:
    """The strength of text guidance over sigma; 1, which costs half, where the options want none."""
    strength = ramp(options.text_guidance, options.text_guidance_start, sigma_max)
    low, high = options.text_guidance_low, options.text_guidance_high
    if low is None and high is None:
        return strength
    return within(strength, -1.0 if low is None else low, math.inf if high is None else high)


def branches(options: RestoreOptions, schedule: Schedule) -> int:
    """How many branches text guidance has at most in a step: 1 where no level of the schedule is guided."""
    strength = text_guidance(options, highest_sigma(options, schedule))
    levels = schedule.churned if options.reference_quirks else schedule.sigmas[:-1]
    return 1 if bool((strength(levels) == 1).all()) else 2


def number_of_branches(options: RestoreOptions, schedule: Schedule) -> int:
    """The same of a picture with its regions, which may be guided where the rest is not."""
    regions = [each for each in split_regions(options.region) if each.dials]
    places = [options, *(options_in(options, each, own_ends=False) for each in regions)]
    return max(branches(each, schedule) for each in places)


def number_of_tiles(layout: Layout, source: ArrayLike) -> int:
    """Of a picture."""
    height, width = source.shape[-2:]
    rows, columns = layout(height, width, Fraction(1))
    return len(rows) * len(columns)
