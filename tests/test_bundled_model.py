"""The model that everyone gets: what it is made of, and what it does to real photographs."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from skimage import data
from skimage.metrics import structural_similarity
from torch import Tensor

from supir.degradation.pairs import degraded, drawn_for
from supir.degradation.recipes import BENCHMARKS
from supir.evaluation.metrics import EfficientNetLite0Distance
from supir.evaluation.niqe import niqe
from supir.image import Picture, read, resize
from supir.options import PRESETS, TRADE_OFFS, IdleOptionWarning
from supir.options.combinations import come_to
from supir.options.presets import same_presets, trade_offs
from supir.pipeline import SupirPipeline
from supir.weights.model_folder import BUNDLED_MODEL

EXAMPLE = Path(__file__).parents[1] / "examples" / "photo.jpg"


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    pipeline = SupirPipeline.from_pretrained()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def photograph(name: str, height: int, width: int) -> Tensor:
    """(3, height, width) of a photograph that comes with scikit-image, in [-1, 1]."""
    pixels = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1).float() / 127.5 - 1
    return resize(pixels, height, width)


def psnr(found: Tensor, original: Tensor) -> float:
    return float(10 * torch.log10(4 / (found - original).square().mean()))


def sharpness(pixels: Tensor) -> float:
    """Mean size of the differences between neighbours."""
    return float(pixels.diff(dim=-1).abs().mean() + pixels.diff(dim=-2).abs().mean())


def test_it_is_small_half_precision_and_described() -> None:
    weights_files = list(BUNDLED_MODEL.glob("*/*.safetensors"))
    assert sum(path.stat().st_size for path in weights_files) <= 36_000_000
    assert (BUNDLED_MODEL / "MODEL_CARD.md").is_file()
    for path in weights_files:
        with safe_open(path, "pt") as weights:
            assert {str(weights.get_slice(key).get_dtype()) for key in weights.keys()} <= {"F16", "I64"}  # noqa: SIM118


def test_its_numbers_are_those_that_it_would_be_exported_with(pipeline: SupirPipeline) -> None:
    tool = Path(__file__).parents[1] / "tools" / "bundled_model" / "presets.json"
    assert pipeline.config.presets == json.loads(tool.read_text())


def test_presets_differ_where_they_come_to_something_else(pipeline: SupirPipeline) -> None:
    """Two presets make one picture exactly where the model's numbers make them the same, and that is said."""
    given = Picture(pixels=photograph("coffee", 64, 64))
    options = {preset: pipeline.options(preset, scale=1.0, min_size=64) for preset in PRESETS}
    found = {preset: pipeline(given, options[preset])[0].picture.pixels for preset in PRESETS}
    same = same_presets(pipeline.config.presets)
    for one, other in itertools.combinations(PRESETS, 2):
        alike = come_to(options[one]) == come_to(options[other])
        assert alike == bool(torch.allclose(found[one], found[other], atol=1e-5)), (one, other)
        assert alike == (same.get(other, other) == same.get(one, one))
    for preset in PRESETS:
        assert pipeline.options(preset).min_size < 1024, "the bundled model works at any size"
        assert trade_offs(pipeline.config.presets)[preset] != TRADE_OFFS[preset], "that is said of large models"


def test_the_example_comes_out_better_than_enlarged(pipeline: SupirPipeline) -> None:
    """Sharper, nearer in structure, and not farther in values, against the photograph it was made from."""
    given = read(EXAMPLE)
    original = photograph("chelsea", 2 * given.height, 2 * given.width)
    enlarged = resize(given.rgb, *original.shape[1:])
    restored = pipeline(given, scale=2)[0].picture.pixels
    assert psnr(restored, original) > psnr(enlarged, original) - 0.75
    assert abs(sharpness(restored) - sharpness(original)) < abs(sharpness(enlarged) - sharpness(original))
    found, before = (
        structural_similarity(picture.numpy(), original.numpy(), channel_axis=0, data_range=2.0)
        for picture in (restored, enlarged)
    )
    assert found > before - 0.02


def test_detail_trades_fidelity_for_sharpness_evenly(pipeline: SupirPipeline) -> None:
    given = Picture(pixels=read(EXAMPLE).rgb[:, 22:118, 96:192])
    original = photograph("chelsea", *(2 * side for side in read(EXAMPLE).rgb.shape[1:]))[:, 44:236, 192:384]
    dial = (0.0, 1 / 3, 2 / 3, 1.0)
    seen = {"scale": 2, "see_larger": False}  # as large as it is: in a fifth of the time
    made = [pipeline(given, **seen, detail=detail)[0].picture.pixels for detail in dial]
    sharp, near = ([measure(picture) for picture in made] for measure in (sharpness, lambda p: psnr(p, original)))
    assert sharp == sorted(sharp)
    assert all(after < before + 0.02 for before, after in itertools.pairwise(near))
    assert sharp[-1] > 1.1 * sharp[0]
    steps = [after - before for before, after in itertools.pairwise(sharp)]
    assert max(steps) < 3 * min(steps), "no part of the dial does nothing"
    [unset] = pipeline(given, **seen)
    assert torch.equal(unset.picture.pixels, made[-1]), "the model's own is the vivid end"


PHOTOGRAPHS = {"astronaut": (slice(0, 288), slice(130, 418)), "coffee": (slice(60, 348), slice(150, 438))}


def restored(pipeline: SupirPipeline, name: str, recipe: str, **options: float) -> dict[str, Tensor]:
    """The middle of a photograph degraded, and what is made of it: bicubic, preview, result; and the truth."""
    rows, columns = PHOTOGRAPHS[name]
    truth = torch.from_numpy(getattr(data, name)()[rows, columns].copy()).permute(2, 0, 1).float() / 127.5 - 1
    low = degraded(truth, drawn_for(recipe, name))
    [found] = pipeline(Picture(pixels=low), scale=truth.shape[1] / low.shape[1], **options)
    enlarged = resize(low, *truth.shape[1:])
    return {"truth": truth, "bicubic": enlarged, "preview": found.preview.rgb, "result": found.picture.rgb}


@pytest.mark.parametrize("recipe", [*BENCHMARKS, "default"])
def test_every_recipe_comes_out_nearer_and_more_natural(pipeline: SupirPipeline, recipe: str) -> None:
    """Than plain enlargement: in likeness as a classifier sees it and in naturalness; sampling keeps the preview."""
    distance = EfficientNetLite0Distance()
    found = [restored(pipeline, name, recipe) for name in PHOTOGRAPHS]

    def mean(measure: Callable[[dict[str, Tensor]], float]) -> float:
        return sum(map(measure, found)) / len(found)

    assert mean(lambda f: niqe(f["result"])) < mean(lambda f: niqe(f["bicubic"]))
    assert mean(lambda f: distance(f["result"], f["truth"])) < 0.95 * mean(lambda f: distance(f["bicubic"], f["truth"]))
    assert mean(lambda f: psnr(f["result"], f["truth"]) - psnr(f["preview"], f["truth"])) > -0.3


def test_words_change_nothing_and_that_is_said(pipeline: SupirPipeline) -> None:
    plain = restored(pipeline, "astronaut", "blur2_sr4")["result"]
    with pytest.warns(IdleOptionWarning, match="text_guidance changes next to nothing with this model: .* no words"):
        guided = restored(pipeline, "astronaut", "blur2_sr4", text_guidance=2)["result"]
    assert float((guided - plain).abs().max()) < 4 / 127.5


@pytest.mark.slow
def test_512_pixels_take_seconds(pipeline: SupirPipeline) -> None:
    begun = time.perf_counter()
    pipeline(Picture(pixels=photograph("coffee", 256, 256)), scale=2)
    assert time.perf_counter() - begun < 20


def test_tiles_change_little_and_leave_no_seams(pipeline: SupirPipeline) -> None:
    """The same picture within a stated bound, and gradients no higher where tiles meet."""
    given = Picture(pixels=resize(photograph("coffee", 400, 600), 96, 160))
    whole, tiled = (
        pipeline(given, preset="fast", scale=4, tile=tile, vae_tile=tile)[0].picture.pixels for tile in (1024, 256)
    )
    assert not torch.equal(whole, tiled)
    assert psnr(tiled, whole) > 30
    borders = torch.tensor([192, 448])  # where neighbouring tiles of 256 with a quarter overlap meet
    energy = tiled.diff(dim=-1).square().mean(dim=(0, 1))
    expected = whole.diff(dim=-1).square().mean(dim=(0, 1))
    near = torch.cat([torch.arange(border - 4, border + 4) for border in borders])
    assert float(energy[near].mean() / expected[near].mean()) == pytest.approx(1, abs=0.1)


def test_autoencoder_tiles_are_the_whole_to_an_eighth_of_a_grey_level(pipeline: SupirPipeline) -> None:
    autoencoder = pipeline.autoencoder
    tile = 4 * autoencoder.degraded_halo
    width = tile + tile // 2
    pixels = photograph("coffee", 256, width)[None]
    sizes: list[int] = []
    handle = autoencoder.restorer.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
    whole, tiled = (
        pipeline.preview_pixels(pixels, pipeline.options(vae_tile=size, scale=4.0)) for size in (4096, tile)
    )
    handle.remove()
    assert sizes == [width, tile, tile]
    assert torch.allclose(whole, tiled, atol=1 / 1020)


@pytest.mark.parametrize("level", [-0.6, 0.0, 0.7])
def test_a_flat_area_stays_flat(pipeline: SupirPipeline, level: float) -> None:
    """No grid from the pixel shuffle, no invented texture, no colour cast."""
    colour = torch.tensor([level, level * 0.8, level * 0.6]).view(3, 1, 1)
    result = pipeline(Picture(pixels=colour.expand(3, 96, 96).contiguous()), preset="fast", scale=2)[0].picture.pixels
    inner = result[:, 32:-32, 32:-32]
    assert float(inner.std(dim=(1, 2)).max()) < 0.03
    assert float((inner.mean(dim=(1, 2), keepdim=True) - colour).abs().max()) < 0.03
