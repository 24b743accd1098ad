"""What the presets come to with a given model, in words: a model's own numbers make other presets of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supir.options import TRADE_OFFS, RestoreOptions, restore_options
from supir.options.combinations import come_to, steps_of, without_effect

ModelPresets = Mapping[str, Mapping[str, Any]]


def same_presets(model_presets: ModelPresets | None = None) -> dict[str, str]:
    """Presets that make the same of every picture as an earlier one, by that one's name."""
    found: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name in TRADE_OFFS:
        earlier = first.setdefault(come_to(restore_options(name, model_presets=model_presets)), name)
        if earlier != name:
            found[name] = earlier
    return found


def trade_offs(model_presets: ModelPresets | None = None) -> dict[str, str]:
    """What each preset is for; of one that the model has numbers of its own for, what it does; in the order to offer.

    Args:
        model_presets: as in ``restore_options``.
    """
    own, same = model_presets or {}, same_presets(model_presets)
    found = {}
    for name, purpose in TRADE_OFFS.items():
        if name in same:
            found[name] = f"the same as {same[name]} with this model"
        elif own.get("all") or own.get(name):
            found[name] = in_words(restore_options(name, model_presets=own))
        else:
            found[name] = purpose
    return found


def without_use(name: str, options: RestoreOptions, model_presets: ModelPresets | None = None) -> bool:
    """Whether it makes no difference, or next to none, what an option is: with this model, or beside the others."""
    unused = (model_presets or {}).get("unused", {})
    return name in unused or "no effect" in without_effect(options, [name], RestoreOptions.silent()).get(name, "")


def in_words(options: RestoreOptions) -> str:
    """What decides a result beside the picture and the words: steps, guidance, pull, detail, how it is seen."""
    steps = steps_of(options)
    count, start, windowed = (
        len(steps.levels),
        options.start_sigma,
        (options.text_guidance_low, options.text_guidance_high),
    )
    begin = "from noise" if start is None else f"from the preview with noise of {start:g}"
    if all(strength == 1 for strength in steps.guidance):
        words = "no text guidance"
    else:
        ramp = "" if options.text_guidance_start is None else f"{options.text_guidance_start:g} to "
        words = f"text guidance {ramp}{options.text_guidance:g}" + " in part of them" * (windowed != (None, None))
    pulled = any(pull > 0 for pull in steps.pull)
    pull = f"a pull toward the photo, tau {options.restoration_guidance:g}" if pulled else "no pull toward the photo"
    quirks = "; with the quirks of the public code" * options.reference_quirks
    detail = "" if options.detail is None else f", detail {options.detail:g}"
    larger = "; photos enlarged little are seen larger" * options.see_larger
    return f"{count} step{'s' * (count > 1)} {begin}, {words}, {pull}{detail}{larger}{quirks}"
