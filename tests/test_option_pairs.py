"""Every option, and every pair of them: each changes the result, or is refused, or is told to have no effect.

The complete pairs with pictures are marked slow. `pytest tests/test_option_pairs.py -s` prints how many of the options
in pairs act, are refused, and are told.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from supir.errors import OptionError, WeightsError
from supir.options import PRESETS, RestoreOptions, restore_options
from supir.options.combinations import AS_THEY_ARE, come_to, without_effect
from supir.pipeline import SupirPipeline
from supir.sampling.noise import SampleNoise
from supir.weights.model_folder import BUNDLED_MODEL
from tiny import tiny_pipeline

MODELS = {"tiny": {}, "bundled": json.loads((BUNDLED_MODEL / "model_index.json").read_text())["presets"]}
SMALL = {"min_size": 64, "scale": 1.0, "tile": 64, "vae_tile": 64}
"""Of a picture of 96 x 64 pixels: two tiles."""
FEW = {"tiny": {"num_steps": 3}, "bundled": {}}
VALUES: dict[str, Any] = {
    "scale": 1.5, "min_size": 96, "prompt": "a door", "tile_prompts": "a|b", "positive_prompt": "sharp",
    "negative_prompt": "dull", "long_prompt": "truncate", "seed": 1, "solver": "dpmpp_2m", "num_steps": 2,
    "grid": "log_snr", "text_guidance": 3.0, "text_guidance_start": 2.0, "text_guidance_low": 0.5,
    "text_guidance_high": 5.0, "control_scale": 0.5, "control_scale_start": 0.25, "restoration_guidance": 1.5,
    "start_sigma": 3.0, "detail": 0.5, "s_churn": 0.8, "s_noise": 0.7, "eta": 0.5, "adaptor_every": 2,
    "deep_cache_every": 2, "color_fix": "none", "tile": 96, "tile_overlap": 8, "tile_batch": 2, "vae_tile": 96,
    "memory": 4.0, "salvage": True, "keep_grain": 0.5, "reference_quirks": True, "lora": "style.safetensors",
    "color_strength": 0.5, "blend": 0.5, "blend_mask": "mask.png", "decoder_tile": 96, "marking": False,
    "region": "0,0,50%,50%; control_scale=0.3", "region_edge": 40, "prompt_weights": False, "first": "x4.pth",
    "always": True, "faces": "gentle", "see_larger": True,
}  # fmt: skip
ON_OTHER_INPUTS = (
    "long_prompt", "memory", "salvage", "min_size", "tile", "tile_batch", "vae_tile", "tile_overlap", "detail",
    "keep_grain", "lora", "decoder_tile", "marking", "region", "first", "always", "faces",
    "see_larger",
)  # fmt: skip
"""They act from some length, size, damage or grain of the input on, on the work alone, or with models that have both
ends, with a file that is there, on what is written beside the pixels: not always on this picture."""


def base(model: str, preset: str) -> RestoreOptions:
    return restore_options(preset, model_presets=MODELS[model], **SMALL, **FEW[model])


def other(options: RestoreOptions, name: str) -> Any:
    """Another value than the options have."""
    if getattr(options, name) != VALUES[name]:
        return VALUES[name]
    others = {"solver": "edm_euler", "reference_quirks": False, "long_prompt": "chunks", "num_steps": 4}
    return others.get(name, 0.9)


def asked(options: RestoreOptions, names: tuple[str, ...]) -> tuple[RestoreOptions | None, set[str]]:
    """The options with other values of some, None where that is refused; and those that are told to do nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = options.replace(**{name: other(options, name) for name in names})
        except OptionError:
            return None, set()
    return found, {str(each.message).split()[0] for each in caught if "no effect" in str(each.message)}


def fates(options: RestoreOptions) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Of each pair (the pair, the option, what becomes of it: act, refuse, tell, silent)."""
    for pair in itertools.combinations(VALUES, 2):
        found, told = asked(options, pair)
        for name, partner in (pair, pair[::-1]):
            if found is None:
                yield pair, name, "refuse"
            elif name in told:
                yield pair, name, "tell"
            else:
                without, _ = asked(options, (partner,))
                same = without is not None and come_to(without) == come_to(found)
                yield pair, name, "silent" if same else "act"


def test_every_option_has_a_value_to_try() -> None:
    assert sorted(VALUES) == sorted(RestoreOptions.fields())
    assert set(ON_OTHER_INPUTS) <= {*AS_THEY_ARE, "tile_overlap"}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_no_option_does_nothing_in_silence(preset: str, model: str) -> None:
    """All pairs, by what options come to; that this is what pictures come to is tested below."""
    counts: Counter[str] = Counter()
    for pair, name, fate in fates(base(model, preset)):
        counts[fate] += 1
        assert fate != "silent", (pair, name)
    pairs = len(VALUES) * (len(VALUES) - 1) // 2
    print(f"{model} {preset}: {pairs} pairs, of whose options {dict(counts)}")
    assert sum(counts.values()) == 2 * pairs
    assert counts["act"] > counts["tell"] > 0


@pytest.fixture(scope="module")
def pipelines() -> dict[str, SupirPipeline]:
    bundled = SupirPipeline.from_pretrained()
    bundled.set_progress_bar_config(disable=True)
    return {"tiny": tiny_pipeline(), "bundled": bundled}


def made(pipeline: SupirPipeline, options: RestoreOptions) -> Tensor | None:
    """The latent that is made, and the pixels; None where the picture is not such as the options need."""
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = pipeline.restore_pixels(pixels, options, noise=SampleNoise([options.seed]))
        except (OptionError, WeightsError):
            return None
    return torch.cat([found.latent.flatten(), found.pixels.flatten()])


def check(pipeline: SupirPipeline, options: RestoreOptions, names: tuple[str, ...], plain: dict[Any, Any]) -> None:
    """What is told changes nothing, and what is not told changes the picture."""

    def result(chosen: tuple[str, ...]) -> Tensor | None:
        if chosen not in plain:
            found, _ = asked(options, chosen)
            plain[chosen] = None if found is None else made(pipeline, found)
        return plain[chosen]

    found, told = asked(options, names)
    if found is None or result(names) is None:
        return
    for name in names:
        rest = tuple(each for each in names if each != name)
        before, after = result(rest), result(names)
        if before is None or name in (*ON_OTHER_INPUTS, "scale"):
            continue
        gap = float((before - after).abs().max()) if before.shape == after.shape else 1.0
        if name in told and not told >= set(names):  # of two that are told together either may be the idle one
            assert gap < 1e-3, (names, name, gap)
        elif name not in told:
            assert gap > 1e-6, (names, name)


FEW_SINGLES = (
    "negative_prompt", "prompt", "solver", "grid", "text_guidance_start", "restoration_guidance", "s_noise", "eta",
    "adaptor_every", "start_sigma",
)  # fmt: skip


def test_what_is_told_is_so(pipelines: dict[str, SupirPipeline]) -> None:
    """Some options; all of them, in pairs and on every preset, are slow."""
    options, plain = base("tiny", "fast"), {}
    for name in FEW_SINGLES:
        check(pipelines["tiny"], options, (name,), plain)
    # Of a first step that the pull replaces, later ones take the features of the branches it was asked in.
    for preset in ("quality", "fidelity"):  # the latter's guidance is 1 where it starts, which is off as well
        check(pipelines["tiny"], base("tiny", preset), ("text_guidance_high", "adaptor_every"), {})
    check(pipelines["bundled"], base("bundled", "reference"), ("scale", "num_steps"), {})


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_all_pairs_with_pictures(pipelines: dict[str, SupirPipeline], preset: str, model: str) -> None:
    options, plain = base(model, preset), {}
    for name in VALUES:
        check(pipelines[model], options, (name,), plain)
    for pair in itertools.combinations([name for name in VALUES if name not in ON_OTHER_INPUTS], 2):
        check(pipelines[model], options, pair, plain)


def test_each_of_what_is_set_is_asked_about() -> None:
    options = restore_options("fast")
    found = without_effect(options.replace(seed=1), ("s_noise", "seed"), options)
    assert list(found) == ["s_noise"]
