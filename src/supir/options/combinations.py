"""Which options act together: what a set of options comes to, and which of them have no effect beside the others.

Two sets of options that come to the same make the same picture. So an option has no effect where every other value of
it comes to the same, and two presets are one where they do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from supir.errors import OptionError
from supir.options.levels import MAX_CHURN, SPACINGS, cut, even_timesteps, karras, training_levels
from supir.options.regions import options_in, split_regions
from supir.prompts import plain_parts, weighted_parts, whole_prompts

if TYPE_CHECKING:
    from supir.options import RestoreOptions

PUBLIC_HIGHEST, PUBLIC_MIN_NEXT = 14.6146, 0.05
"""The top of the public code's ramps; and the level at or below which a step must end to be left unpulled."""
AS_THEY_ARE = (
    "scale", "min_size", "seed", "long_prompt", "detail", "color_fix", "tile", "tile_batch", "vae_tile", "memory",
    "salvage", "keep_grain", "lora", "blend", "decoder_tile", "marking", "region", "first", "always",
    "faces", "see_larger",
)  # fmt: skip
"""Options that act whatever the others are; those about tiles, length and damage on some inputs alone."""
OFF = {
    "s_churn": 0,
    "eta": 0,
    "adaptor_every": 1,
    "deep_cache_every": 1,
    "prompt": "",
    "tile_prompts": "",
    "blend_mask": "",
    "region": "",
    "faces": "as-all-else",
}
"""Values that ask for nothing: nobody need be told that they have no effect. Unset is one too."""


@dataclass(frozen=True)
class Steps:
    """What the steps of a restoration are given: a number a step of each."""

    levels: list[float]
    """Of the noise, when the step begins."""
    churned: list[float]
    """The same with the noise that ``s_churn`` adds."""
    guidance: list[float]
    control: list[float]
    pull: list[float]
    fresh: list[float]
    """Deviation of the noise that is drawn in the step."""

    @property
    def live(self) -> slice:
        """The steps whose answer counts: not the first where the pull puts the photo's own latent in its place."""
        return slice(1 if self.pull[0] == 1 else 0, None)


def levels_of(options: RestoreOptions) -> list[float]:
    """The noise levels at which steps begin; fewer than ``num_steps`` where the public code's are cut."""
    table, start, count = training_levels(), options.start_sigma, options.num_steps
    public = options.solver == "reference_dpmpp_2m"
    if not public and not options.reference_quirks:
        return SPACINGS[options.grid](count, table[0], start or table[-1])
    even = [table[index] for index in reversed(even_timesteps(count))]
    return cut(karras(count, even[-1], even[0]) if public else even, start)


def steps_of(options: RestoreOptions) -> Steps:
    """The numbers of each step, as ``supir.restoration.restorer`` arrives at them."""
    levels, quirks, fixed = levels_of(options), options.reference_quirks, options.solver == "reference_dpmpp_2m"
    churns = options.solver == "edm_euler"
    factor = 1 + min(options.s_churn / len(levels), MAX_CHURN) * churns
    churned = [level * factor for level in levels]
    ends = [*levels[1:], 0.0]
    top = PUBLIC_HIGHEST if quirks and options.start_sigma is None else levels[0]
    low, high = options.text_guidance_low, options.text_guidance_high

    def ramp(at_end: float, at_start: float | None, level: float) -> float:
        return at_end if at_start is None else at_end + (at_start - at_end) * level / top

    def guidance(level: float) -> float:
        inside = (low is None or level > low) and (high is None or level <= high)
        return ramp(options.text_guidance, options.text_guidance_start, level) if inside else 1.0

    def pull(level: float, end: float) -> float:
        tau, least = options.restoration_guidance, PUBLIC_MIN_NEXT if quirks else 0.0
        return 0.0 if tau is None or fixed or end <= least else (level / top) ** tau

    def fresh(index: int) -> float:
        if churns:
            return options.s_noise * math.sqrt(max(churned[index] ** 2 - levels[index] ** 2, 0.0))
        if ends[index] == 0 or (fixed and index == 0):
            return 0.0
        if options.solver == "lcm":
            return options.s_noise * ends[index]
        share = (ends[index] / levels[index]) ** (2 * options.fresh_share)
        return options.s_noise * ends[index] * math.sqrt(max(1 - share, 0.0))

    start = None if fixed else options.control_scale_start
    return Steps(
        levels=levels,
        churned=churned,
        guidance=[guidance(level) for level in (churned if quirks else levels)],
        control=[ramp(options.control_scale, start, level) for level in levels],
        pull=[pull(level, end) for level, end in zip(levels, ends, strict=True)],
        fresh=[fresh(index) for index in range(len(levels))],
    )


@lru_cache(maxsize=4096)
def come_to(options: RestoreOptions) -> tuple[Any, ...]:
    """All that the options come to: equal for two that make the same of every picture."""
    steps = steps_of(options)
    count, guided, control = len(steps.levels), steps.guidance[steps.live], steps.control[steps.live]
    multistep = options.solver in ("dpmpp_2m", "reference_dpmpp_2m")
    positive, negative = whole_prompts(options)
    read = weighted_parts if options.prompt_weights else plain_parts
    halves = 2 if options.reference_quirks else 4
    return (
        *(getattr(options, name) for name in AS_THEY_ARE),
        options.reference_quirks,
        options.color_strength if options.color_fix != "none" else 0.0,
        options.blend_mask if options.blend else "",
        options.region_edge if options.region or options.faces != OFF["faces"] else 0,
        options.tile // halves if options.tile_overlap is None else options.tile_overlap,
        options.start_sigma is None,
        multistep and count > 2,  # before that it has no earlier answer to extrapolate from
        options.fresh_share if multistep and count > 1 else 0.0,
        options.solver == "lcm" and count > 1,
        tuple(map(read, positive)) if any(strength != 0 for strength in guided) else None,
        read(negative) if any(strength != 1 for strength in guided) else None,
        _kept(options, steps),
        *map(_rounded, (steps.levels, steps.churned, guided, control, steps.pull, steps.fresh)),
    )


def _kept(options: RestoreOptions, steps: Steps) -> tuple[Any, ...]:
    """From which step each step that counts takes the adaptor's features and the UNet's deep ones, as the caches of
    ``restoration/denoiser_network.py`` keep them: by branch of text guidance, so that a step of two branches takes
    nothing from one of one. With that, what a first step whose answer does not count leaves in them.
    """
    adaptor, deep, found = dict[str, tuple[int, bool]](), dict[str, int](), list[tuple[int, int]]()
    for index, (strength, control) in enumerate(zip(steps.guidance, steps.control, strict=True)):
        adaptor = {name: kept for name, kept in adaptor.items() if index - kept[0] < options.adaptor_every}
        deep = {name: kept for name, kept in deep.items() if index - kept < options.deep_cache_every}
        branches = ("positive",) if strength == 1 else ("positive", "negative")
        takes_deep = all(name in deep for name in branches)
        known = all(name in adaptor and (takes_deep or not adaptor[name][1]) for name in branches)
        if control != 0 and not known:
            adaptor |= dict.fromkeys(branches, (index, takes_deep))  # beside deep features the outer ones alone
        if not takes_deep:
            deep |= dict.fromkeys(branches, index)
        found.append((index if control == 0 else adaptor["positive"][0], deep["positive"]))
    live = found[steps.live]
    left = _rounded(steps.control[:1]) if steps.live.start and any(of_unet == 0 for _, of_unet in live) else ()
    return tuple(live), left


def without_effect(options: RestoreOptions, names: Collection[str], baseline: RestoreOptions) -> dict[str, str]:
    """Of the options that a person has set, those that change nothing, each with a sentence that says why.

    Args:
        options: all of them together.
        names: those that were set.
        baseline: what the options were before.
    """
    found, made = {}, come_to(options)
    for name in names:
        value, before = getattr(options, name), getattr(baseline, name)
        if name in AS_THEY_ARE or _asks_for_nothing(options, name):
            continue
        others = (_changed(options, name, other) for other in _values(options, name))
        if (value != before and _changed(options, name, before) == made) or all(other == made for other in others):
            shown = "off" if value is None else value if isinstance(value, (int, float)) else repr(value)
            found[name] = f"{name} {shown} has no effect: {_reason(options, name, before)}"
    for name in names:
        value = getattr(options, name)
        if not isinstance(value, str) or name in found or "prompt" not in name or name == "long_prompt":
            continue
        parts = weighted_parts(value)
        if not options.prompt_weights and parts != plain_parts(value):
            found[name] = f"{name}: (word:1.2) and BREAK are read as plain letters, since prompt_weights is off"
        elif len(parts) > 1 and options.long_prompt == "truncate":
            found[name] = f"{name}: BREAK begins no other chunk, since long_prompt is truncate"
    if "region" in names:
        found |= _idle_in_regions(options)
    if "faces" in names and options.faces == "gentle" and options.detail == 0:
        found["faces"] = "faces gentle has no effect: detail is 0 for all else too"
    taken = len(levels_of(options))
    if taken < options.num_steps and {"num_steps", "start_sigma"} & set(names):
        sentence = f"num_steps {options.num_steps}: {taken} are taken, those of the public code's schedule that begin"
        found.setdefault("num_steps", f"{sentence} at or below start_sigma {options.start_sigma}")
    return found


def _idle_in_regions(options: RestoreOptions) -> dict[str, str]:
    """What regions say that acts nowhere."""
    found = {}
    plain = type(options).silent(**(vars(options) | {"region": ""}))
    for number, region in enumerate(split_regions(options.region), 1):
        dials = [name for name, _ in region.dials]
        for name, sentence in without_effect(options_in(options, region), dials, plain).items():
            found[f"region {number} {name}"] = f"region {number}: {sentence}"
    return found


def _rounded(numbers: list[float]) -> tuple[float, ...]:
    """What differs by no more than rounding is the same."""
    return tuple(float(f"{number:.5g}") for number in numbers)


def _changed(options: RestoreOptions, name: str, value: Any) -> tuple[Any, ...] | None:
    """What the options come to with another value; None where that cannot be."""
    try:
        return come_to(type(options).silent(**(vars(options) | {name: value})))
    except OptionError:
        return None


def _values(options: RestoreOptions, name: str) -> Iterator[Any]:
    """Some values of an option, the farthest among them."""
    field = options.fields()[name]
    if field.is_number:
        low, high = field.low, min(field.high, 100)
        yield from (low, high, field.kind((low + high) / 2))
    elif field.kind is bool:
        yield from (False, True)
    else:
        yield from field.choices or ("", "other words")
    if field.optional:
        yield None


def _asks_for_nothing(options: RestoreOptions, name: str) -> bool:
    value = getattr(options, name)
    if name == "text_guidance":
        return value == 1 and all(strength == 1 for strength in steps_of(options).guidance)
    return value is None or (name in OFF and value == OFF[name])


def _reason(options: RestoreOptions, name: str, before: Any) -> str:
    """Why an option has no effect."""
    steps = steps_of(options)
    count, guided, solver = len(steps.levels), steps.guidance[steps.live], options.solver
    in_steps = "in the only step" if count == 1 else "in every step"
    low, high = options.text_guidance_low, options.text_guidance_high
    outside = not any((low is None or level > low) and (high is None or level <= high) for level in steps.levels)
    of_the_window, of_words = ("text_guidance_low", "text_guidance_high"), ("text_guidance", "text_guidance_start")
    public = solver == "reference_dpmpp_2m" or options.reference_quirks
    cases = {
        "color_fix is none, and nothing is taken": name == "color_strength",
        "blend is 0, so that nothing of the preview is mixed in": name == "blend_mask",
        "no prompt says (word:1.2) or BREAK": name == "prompt_weights",
        "there is no region": name == "region_edge",
        "tile_prompts say what each tile shows": name == "prompt" and bool(options.tile_prompts),
        f"text guidance is 0 {in_steps}, where the negative words alone are read": all(s == 0 for s in guided),
        "no step begins at a noise level between text_guidance_low and text_guidance_high": outside
        and name in (*of_the_window, *of_words, "negative_prompt"),
        f"text guidance is 1 {in_steps}, which is off: set text_guidance as well": name
        in (*of_the_window, "negative_prompt")
        and all(strength == 1 for strength in guided),
        f"every step begins {'above' if name == of_the_window[0] else 'at or below'} it": name in of_the_window,
        "of two steps the pull takes the first whole, whatever its strength, and leaves the last": name
        == "restoration_guidance"
        and count == 2,
        "the last step is not pulled, and there is no other": name == "restoration_guidance"
        and max(steps.pull) == 0
        and solver != "reference_dpmpp_2m",
        "the ramp is at its start in the only step": name in ("text_guidance", "control_scale") and count == 1,
        "restoration_guidance puts the photo's own latent in place of the first step's answer": name.endswith("_start")
        and steps.pull[0] == 1,
        "the public code's schedule has a spacing of its own": name == "grid" and public,
        f"karras and log_snr agree for {count} step{'s' * (count > 1)}": name == "grid",
        f"all solvers agree for {count} step{'s' * (count > 1)} without noise added": name == "solver",
        f"solver {solver} does not hear it": (name == "eta" and solver in ("edm_euler", "lcm"))
        or (name == "s_churn" and solver != "edm_euler")
        or (solver == "reference_dpmpp_2m" and name in ("restoration_guidance", "control_scale_start")),
        "a step at most doubles the variance of the noise": name == "s_churn",
        "the only step adds no noise": count == 1 and name in ("eta", "s_noise") and solver != "edm_euler",
        f"{'s_churn' if solver == 'edm_euler' else 'eta'} is 0, so that no noise is added": name == "s_noise",
        "there is one step, and nothing to take from an earlier one": count == 1 and name.endswith("_every"),
        "control_scale is 0, and the adaptor is not heard": name == "adaptor_every" and not any(steps.control),
        "no step finds what an earlier one kept: that asked fewer branches of text guidance": name.endswith("_every"),
    }
    holds = [reason for reason, case in cases.items() if case]
    return holds[0] if holds else f"it comes to the same as {'off' if before is None else repr(before)}"
