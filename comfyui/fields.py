"""Inputs of nodes, made of the options of `supir`: names, order, ranges, defaults and sentences are theirs."""

from comfy_api.v0_0_2 import io

from supir.options import GOES_WITH, TRADE_OFFS, RestoreOptions, restore_options
from supir.options.fields import OFF

UNSET = -1
"""What a number shows that is unset: widgets cannot be empty, and no number of ours that may be unset is below 0."""
BY_PRESET = (
    "num_steps", "text_guidance", "text_guidance_start", "control_scale", "control_scale_start",
    "restoration_guidance", "solver", "grid", "text_guidance_low", "text_guidance_high", "start_sigma", "s_churn",
    "s_noise", "eta", "adaptor_every", "deep_cache_every",
)  # fmt: skip
"""The numbers that a preset decides: shown under it, with its values."""
COMMON = (
    "scale", "prompt", "negative_prompt", "seed", "detail", "color_fix", "blend", "min_size", "tile_prompts",
    "positive_prompt", "long_prompt", "color_strength", "keep_grain", "tile", "tile_overlap", "tile_batch",
    "vae_tile", "decoder_tile", "memory", "region", "region_edge", "prompt_weights",
)  # fmt: skip
PLAIN = (*BY_PRESET[:6], *COMMON[:7])
"""Those that are shown at once; the others on "advanced"."""
MULTILINE = ("prompt", "negative_prompt", "tile_prompts", "positive_prompt")


def shown(field, default):
    """A default as a widget shows it."""
    return ({str: ""}.get(field.kind, UNSET)) if default is None else default


def widget(field, default=..., **more):
    """The input of an option's field."""
    about = {
        "id": field.name,
        "default": shown(field, field.default if default is ... else default),
        "tooltip": field.doc + (f" [{field.unit}]" if field.unit else "") + f"; {UNSET}: unset" * field.may_be_off,
        **more,
    }
    if field.kind is bool:
        return io.Boolean.Input(**about)
    if field.choices:
        return io.Combo.Input(options=[*field.choices], **about)
    if field.kind is str:
        return io.String.Input(multiline=field.name in MULTILINE, **about)
    low = UNSET if field.may_be_off else field.low
    if field.kind is int:
        return io.Int.Input(min=low, max=field.high, step=1, **about)
    return io.Float.Input(min=float(low), max=float(field.high), step=0.001, round=False, **about)


def option_inputs():
    """The widgets of a restoration: the preset with its numbers, then what is the same for all."""
    fields = RestoreOptions.fields()

    def one(name, default=...):
        more = {"control_after_generate": True} if name == "seed" else {}
        return widget(fields[name], default, advanced=None if name in PLAIN else True, **more)

    presets = [
        io.DynamicCombo.Option(name, [one(field, getattr(restore_options(name), field)) for field in BY_PRESET])
        for name in TRADE_OFFS
    ]
    tooltip = "a number that stays as it is shown is the model's own: " + "; ".join(
        f"{name}: {purpose}" for name, purpose in TRADE_OFFS.items()
    )
    return [io.DynamicCombo.Input("preset", options=presets, tooltip=tooltip), *map(one, COMMON)]


def overrides(preset, values):
    """What `SupirPipeline.options` is to be told: the preset, and what was changed from what the widgets show at first.

    Args:
        preset: as ComfyUI gives the widgets of a DynamicCombo: its name under "preset", and its numbers.
        values: of the others.
    """
    name = preset["preset"]
    fields, fresh = RestoreOptions.fields(), restore_options(name)
    given = {field: value for field, value in {**preset, **values}.items() if field in fields}
    first = {field: getattr(fresh if field in BY_PRESET else RestoreOptions.silent(), field) for field in given}
    changed = {field for field, value in given.items() if value != shown(fields[field], first[field])}
    changed |= {start for end, start in GOES_WITH.items() if end in changed and start in given}
    return {"preset": name} | {field: unset(fields[field], given[field]) for field in given if field in changed}


def unset(field, value):
    """A widget's value as an option's."""
    return OFF if field.may_be_off and value == UNSET else value
