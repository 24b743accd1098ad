"""Fewer evaluations: off is the plain path to the bit, on evaluates what it says, and the error stays small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from supir.errors import OptionError
from supir.options import RestoreOptions
from supir.pipeline import SupirPipeline
from supir.restoration import denoiser_network
from supir.restoration.restorer import Restorer
from supir.restoration.schedules import noise_schedule
from supir.sampling.noise import SampleNoise
from supir.sampling.sigmas import full_range_sigmas
from test_pipeline import picture
from tiny import tiny_pipeline

STEPS = 6
QUICK = {
    "min_size": 64,
    "scale": 1.0,
    "tile": 64,
    "num_steps": STEPS,
    "s_churn": 0.0,
    "text_guidance": 2.0,
    "text_guidance_start": "off",
}
NUM_TILES = 2
"""Tiles of 64 pixels in ``pixels()``."""


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    return tiny_pipeline()


def pixels(seed: int = 0, width: int = 96) -> Tensor:
    return picture(64, width, seed).pixels[None]


def latent(pipeline: SupirPipeline, given: Tensor | None = None, **options: object) -> Tensor:
    return pipeline.restore_pixels(pixels() if given is None else given, pipeline.options(**(QUICK | options))).latent


def error(found: Tensor, plain: Tensor) -> float:
    """Root mean square of the difference over the deviation of the plain result."""
    return float((found - plain).square().mean().sqrt() / plain.std())


@pytest.fixture(scope="module")
def plain(pipeline: SupirPipeline) -> Tensor:
    return latent(pipeline)


@dataclass
class Calls:
    """Rows (samples x tiles x branches) of every call of four parts, in order."""

    unet: list[int] = field(default_factory=list)
    unet_middle: list[int] = field(default_factory=list)
    adaptor: list[int] = field(default_factory=list)
    adaptor_middle: list[int] = field(default_factory=list)


@contextmanager
def counted(pipeline: SupirPipeline) -> Iterator[Calls]:
    calls = Calls()

    def hook(rows: list[int]) -> Any:
        return lambda module, given, output: rows.append(len(given[0]))

    parts: dict[nn.Module, list[int]] = {
        pipeline.unet: calls.unet,
        pipeline.unet.mid_block: calls.unet_middle,
        pipeline.adaptor: calls.adaptor,
        pipeline.adaptor.mid_block: calls.adaptor_middle,
    }
    handles = [part.register_forward_hook(hook(rows)) for part, rows in parts.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def test_off_is_the_plain_path_to_the_bit(pipeline: SupirPipeline, plain: Tensor) -> None:
    with counted(pipeline) as calls:
        assert torch.equal(latent(pipeline, adaptor_every=1, deep_cache_every=1, text_guidance_low="off"), plain)
    everything = [2] * (STEPS * NUM_TILES)
    assert calls == Calls(everything, everything, everything, everything)


def test_without_connectors_the_adaptor_rests(pipeline: SupirPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """At control_scale 0 nothing of it is heard: the picture is the one that it would have no part in."""
    with counted(pipeline) as calls:
        found = latent(pipeline, control_scale=0.0)
    assert calls.unet == [2] * (STEPS * NUM_TILES)
    assert calls.adaptor == []
    with monkeypatch.context() as patch, counted(pipeline) as calls:
        patch.setattr(denoiser_network, "one_number", lambda values: values)  # as where the strength is not known
        heard = latent(pipeline, control_scale=0.0)
    assert calls.adaptor == calls.unet
    assert torch.equal(found, heard)
    with counted(pipeline) as calls:
        latent(pipeline, control_scale=0.0, solver="dpmpp_2m", text_guidance=1.0)
    assert (calls.unet, calls.adaptor) == ([1] * (STEPS * NUM_TILES), [])


def test_a_range_that_holds_every_level_is_the_plain_path_to_the_bit(pipeline: SupirPipeline, plain: Tensor) -> None:
    assert torch.equal(latent(pipeline, text_guidance_low=0, text_guidance_high=30), plain)


@pytest.mark.parametrize("solver", ["edm_euler", "dpmpp_2m"])
def test_outside_of_the_range_only_the_positive_branch_runs(pipeline: SupirPipeline, solver: str) -> None:
    seen: list[float] = []
    options = pipeline.options(**QUICK, solver=solver, text_guidance_low=0.2, text_guidance_high=5.0)
    with counted(pipeline) as calls:
        pipeline.restore_pixels(pixels(), options, on_step=lambda step: seen.append(step.sigma))
    levels = [14.6146, *seen[:-1]]
    expected = [1 + (0.2 < level <= 5) for level in levels for _ in range(NUM_TILES)]
    assert calls.unet == calls.adaptor == expected
    assert 1 in expected
    assert 2 in expected


def test_the_range_changes_little_where_guidance_is_weak(pipeline: SupirPipeline, plain: Tensor) -> None:
    unguided = error(latent(pipeline, text_guidance=1.0), plain)
    ranged = error(latent(pipeline, text_guidance_high=5.0), plain)
    low_alone = error(latent(pipeline, text_guidance_low=0.1), plain)
    assert 0 < low_alone < ranged < 1.2 * unguided < 0.1


def test_bounds_of_the_range_must_be_in_order() -> None:
    with pytest.raises(OptionError, match="text_guidance_low is 2 and text_guidance_high 2"):
        RestoreOptions(text_guidance_low=2, text_guidance_high=2)


def test_the_adaptor_runs_in_one_step_of_three(pipeline: SupirPipeline, plain: Tensor) -> None:
    with counted(pipeline) as calls:
        found = latent(pipeline, adaptor_every=3)
    assert calls.adaptor == calls.adaptor_middle == [2] * (STEPS // 3 * NUM_TILES)
    assert calls.unet == calls.unet_middle == [2] * (STEPS * NUM_TILES)
    assert 0 < error(latent(pipeline, adaptor_every=2), plain) < error(found, plain) < 0.5


def test_the_deep_blocks_run_in_one_step_of_three(pipeline: SupirPipeline, plain: Tensor) -> None:
    with counted(pipeline) as calls:
        found = latent(pipeline, deep_cache_every=3)
    assert calls.unet_middle == calls.adaptor_middle == [2] * (STEPS // 3 * NUM_TILES)
    assert calls.unet == calls.adaptor == [2] * (STEPS * NUM_TILES)
    assert 0 < error(latent(pipeline, deep_cache_every=2), plain) < error(found, plain) < 0.5


def test_both_at_once_and_only_one_branch_at_the_end(pipeline: SupirPipeline, plain: Tensor) -> None:
    options = {"adaptor_every": 2, "deep_cache_every": 4, "text_guidance_low": 0.2}
    with counted(pipeline) as calls:
        found = latent(pipeline, **options)
    per_step = [calls.unet[index] for index in range(0, len(calls.unet), NUM_TILES)]
    assert per_step == [2, 2, 2, 2, 1, 1]
    assert calls.unet_middle == [2] * NUM_TILES + [1] * NUM_TILES  # steps 0 and 4
    assert calls.adaptor == [2] * (2 * NUM_TILES) + [1] * NUM_TILES  # steps 0, 2 (of which the outer blocks alone), 4
    assert calls.adaptor_middle == calls.unet_middle
    assert 0 < error(found, plain) < 0.5


@pytest.mark.parametrize("tile_batch", [1, 2])
@pytest.mark.parametrize("option", ["adaptor_every", "deep_cache_every"])
@torch.no_grad()
def test_features_belong_to_their_tile_branch_and_sample(pipeline: SupirPipeline, option: str, tile_batch: int) -> None:
    """Asked the same again, the second step reuses: whatever came from another row would show."""
    options = pipeline.options(**(QUICK | {option: 2, "tile_batch": tile_batch, "text_guidance": 8.0}))
    restorer = Restorer(autoencoder=pipeline.autoencoder, unet=pipeline.unet, adaptor=pipeline.adaptor, options=options)
    lq_latent, x = (SampleNoise([seed, seed + 1])(torch.empty(2, 4, 8, 12)) for seed in (1, 3))
    words = pipeline.embed_words(options, 2)
    denoise = restorer.denoiser(lq_latent, lq_latent, words, noise_schedule(options))
    sigma = noise_schedule(options).sigmas[2].expand(2)
    with counted(pipeline) as calls:
        first = denoise(x, sigma)
        assert torch.equal(denoise(x, sigma), first)
    once = [4 * tile_batch] * (NUM_TILES // tile_batch)
    assert (calls.adaptor if option == "adaptor_every" else calls.unet_middle) == once
    assert calls.unet == 2 * once


@pytest.mark.parametrize("option", ["adaptor_every", "deep_cache_every"])
def test_nothing_is_left_for_the_next_picture(pipeline: SupirPipeline, option: str) -> None:
    first = latent(pipeline, pixels(1), **{option: STEPS})
    latent(pipeline, pixels(2), **{option: STEPS})
    assert torch.equal(latent(pipeline, pixels(1), **{option: STEPS}), first)


def test_a_branch_that_comes_back_is_computed_anew(pipeline: SupirPipeline) -> None:
    """Guidance from the second step on: the negative branch is met first in a step that would reuse."""
    with counted(pipeline) as calls:
        latent(pipeline, text_guidance_high=8.0, deep_cache_every=3)
    per_step = [calls.unet[index] for index in range(0, len(calls.unet), NUM_TILES)]
    begun = per_step.index(2)
    assert 0 < begun < 3
    assert calls.unet_middle[:NUM_TILES] == [1] * NUM_TILES
    assert calls.unet_middle[NUM_TILES : 2 * NUM_TILES] == [2] * NUM_TILES
    assert len(calls.unet_middle) == NUM_TILES * (1 + -(-(STEPS - begun) // 3))


@torch.no_grad()
def test_own_deep_features_give_the_same_prediction_to_the_bit(pipeline: SupirPipeline) -> None:
    unet, adaptor = pipeline.unet, pipeline.adaptor
    words = pipeline.embed_words(pipeline.options(), 2)
    sample, hint = (SampleNoise([seed, seed + 1])(torch.empty(2, 4, 8, 12)) for seed in (1, 3))
    timestep, added = torch.tensor([400.0, 700.0]), {"vector": words.vector}
    control = adaptor(sample, timestep, words.tokens, added, hint)
    outer = adaptor(sample, timestep, words.tokens, added, hint, outer_only=True)
    assert len(outer) == 3
    assert all(torch.equal(*pair) for pair in zip(outer, control, strict=False))
    whole = unet(sample, timestep, words.tokens, added_cond_kwargs=added, control=control, control_scale=0.7)
    again = unet(
        sample, timestep, words.tokens, added_cond_kwargs=added, control=outer, control_scale=0.7, deep=whole.deep
    )
    assert torch.equal(again.sample, whole.sample)
    other = unet(
        sample, timestep, words.tokens, added_cond_kwargs=added, control=outer, control_scale=0.7, deep=whole.deep + 1
    )
    assert (other.sample - whole.sample).abs().max() > 0.01


def test_the_grid_is_the_options(pipeline: SupirPipeline) -> None:
    seen: dict[str, list[float]] = {}
    for grid in ("karras", "log_snr"):
        options = pipeline.options(**QUICK, grid=grid)
        levels = seen.setdefault(grid, [])
        pipeline.restore_pixels(pixels(), options, on_step=lambda step, levels=levels: levels.append(step.sigma))
    assert seen["log_snr"] == full_range_sigmas(STEPS, grid="log_snr")[1:].tolist() != seen["karras"]
