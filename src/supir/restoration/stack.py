"""The networks as the one function that a solver calls: what wraps them, put together by the options."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from supir.options import RestoreOptions
from supir.restoration.denoiser_network import CACHE_KEYS, Conditions, GuidedNetwork, cache_keys
from supir.restoration.regions import Answer, number_of_calls, with_places
from supir.restoration.schedules import highest_sigma, number_of_branches, number_of_tiles, ramp, text_guidance
from supir.restoration.work import SAMPLING
from supir.sampling.denoiser import (
    Ramp,
    answered_by_place,
    discrete_denoiser,
    in_tiles,
    pull,
    restored_towards,
    text_guided,
)
from supir.sampling.feature_cache import StepCache, counting_steps
from supir.sampling.sigmas import Schedule
from supir.sampling.solvers import Denoiser

if TYPE_CHECKING:
    from supir.restoration.restorer import Restorer

REFERENCE_MIN_NEXT_SIGMA = 0.05
"""With quirks, steps that end at or below this level are not pulled toward the anchor (reference section 6); ours are
pulled in all but the last, whose answer is the result."""


def stacked(
    restorer: Restorer, lq_latent: Tensor, anchor: Tensor, conditions: Conditions, schedule: Schedule
) -> Denoiser:
    """The stack of wrappers around a restorer's networks, for the tiles of now."""
    options, together = restorer.backoff.options, restorer.backoff.together
    sigma_max, before = highest_sigma(options, schedule), schedule.before_churn
    fixed = options.solver == "reference_dpmpp_2m"  # it hears no ramp and no pull (reference section 15, quirk 6)
    asked = restorer.places
    places = asked and replace(asked, shares=asked.shares.to(lq_latent.device))

    def control(answer: Answer) -> Ramp:
        at_zero, at_max = answer.control
        strength = ramp(at_zero, None if fixed else at_max, sigma_max)
        return lambda sigma: strength(before(sigma))

    def guidance(here: RestoreOptions) -> Ramp:
        return text_guidance(here, sigma_max)

    def pulled(here: RestoreOptions) -> Ramp:
        return pull(None if fixed else here.restoration_guidance)

    network = GuidedNetwork(
        unet=restorer.unet,
        adaptor=restorer.adaptor,
        control_scales=[*map(control, [Answer.of(options, 0)] if places is None else places.answers)],
        control_kept=StepCache(options.adaptor_every),
        deep_kept=StepCache(options.deep_cache_every),
    )
    kept = network.control_kept, network.deep_kept
    denoise = discrete_denoiser(network, restorer.unet.config.prediction_type, quantised=options.reference_quirks)
    positive: dict[str, Any] = {"tokens": conditions.tokens, "vector": conditions.vector, "control": lq_latent}
    negative = positive | {"tokens": conditions.negative_tokens, "vector": conditions.negative_vector}
    layout = restorer.latent_layout()
    num_tiles = number_of_tiles(layout, lq_latent)
    # One call for each batch of tiles, and for every branch and answer that is alone.
    calls = math.ceil(num_tiles / options.tile_batch)
    if asked is not None and places is not None:
        with_places(positive, negative, places, asked.present(layout, len(lq_latent)), conditions)
    if "present" in positive:
        calls = number_of_calls(positive["present"], options.tile_batch)
    calls *= schedule.num_steps * (1 if together else number_of_branches(restorer.options, schedule))
    denoise = restorer.counted(denoise, SAMPLING, calls)
    if "present" in positive:
        denoise = answered_by_place(denoise, 2 * num_tiles * len(lq_latent))
    if any(cache.in_use for cache in kept):
        negative[CACHE_KEYS], positive[CACHE_KEYS] = cache_keys(lq_latent, layout)
    strength = guidance(options) if places is None else places.strength(guidance)
    guided = text_guided(
        in_tiles(denoise, layout, batch=options.tile_batch),
        positive,
        negative,
        strength if options.reference_quirks else lambda sigma: strength(before(sigma)),
        in_one_batch=together,
    )
    tau_r = None if fixed else options.restoration_guidance
    return restored_towards(
        counting_steps(guided, *kept),
        anchor,
        tau_r if places is None else places.strength(pulled),
        schedule=schedule,
        sigma_max=sigma_max,
        min_next_sigma=REFERENCE_MIN_NEXT_SIGMA if options.reference_quirks else 0.0,
    )
