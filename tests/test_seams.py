"""Tiles and regions leave no seams: on borders the result is as rough as elsewhere, compared with a result of one."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from supir.image import Picture
from supir.options import RestoreOptions
from supir.pipeline import SupirPipeline
from supir.restoration.restorer import Restorer
from supir.tensors.tiling import Layout, blended

pytestmark = pytest.mark.slow

TILE, SIDE, FACTOR, WIDTH = 256, 512, 8, 4
"""``WIDTH``: pixels on each side of a border that are looked at."""


def sky() -> Tensor:
    """(3, SIDE, SIDE): blue growing lighter towards the horizon, with a little grain."""
    down = torch.linspace(0, 1, SIDE)[:, None].expand(SIDE, SIDE)
    plain = torch.stack([0.2 + 0.4 * down, 0.4 + 0.3 * down, 0.8 + 0.1 * down])
    return (plain + 0.01 * torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0))) * 2 - 1


def grass() -> Tensor:
    """A photograph, (3, SIDE, SIDE)."""
    return torch.from_numpy(np.asarray(data.grass())[:SIDE, :SIDE].copy()).float().div(127.5).sub(1).expand(3, -1, -1)


def energy(pixels: Tensor) -> Tensor:
    """(rows, columns) squared differences to the right and the lower neighbour, summed over the channels."""
    right, down = pixels[:, :-1, 1:] - pixels[:, :-1, :-1], pixels[:, 1:, :-1] - pixels[:, :-1, :-1]
    return (right.square() + down.square()).sum(0)


def on_borders(layout: Layout) -> Tensor:
    """(SIDE - 1, SIDE - 1): which pixels lie where one tile gives way to the next."""
    rows, columns = layout(SIDE // FACTOR, SIDE // FACTOR, Fraction(1))
    found = torch.zeros(2, SIDE - 1, dtype=torch.bool)
    for axis, strips in enumerate((rows, columns)):
        for one, other in pairwise(strips):
            middle = (other.start + one.stop) * FACTOR // 2
            found[axis, middle - WIDTH : middle + WIDTH] = True
    return found[0][:, None] | found[1]


def roughness(pipeline: SupirPipeline, photo: Tensor, options: RestoreOptions) -> float:
    """How much rougher, against one tile, the tiled result is on borders than elsewhere; 1 is alike."""
    whole, tiled = (
        pipeline(Picture(pixels=photo.clone()), options.replace(tile=tile))[0].picture.pixels for tile in (SIDE, TILE)
    )
    borders = on_borders(Restorer.latent_layout(pipeline._restorer(options.replace(tile=TILE))))
    assert 0.02 < borders.float().mean() < 0.2
    ratio = [energy(tiled)[place].sum() / energy(whole)[place].sum() for place in (borders, ~borders)]
    print(f"on borders {float(ratio[0] / ratio[1]):.4f} of the roughness elsewhere")
    return float(ratio[0] / ratio[1])


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    found = SupirPipeline.from_pretrained()
    found.set_progress_bar_config(disable=True)
    return found


@pytest.mark.parametrize("photo", [sky(), grass()], ids=["sky", "grass"])
def test_borders_are_as_rough_as_elsewhere(pipeline: SupirPipeline, photo: Tensor) -> None:
    options = pipeline.options(scale=1.0, min_size=SIDE)
    assert roughness(pipeline, photo, options) == pytest.approx(1, abs=0.02)


def test_without_blending_seams_are_seen(pipeline: SupirPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Restorer, "latent_layout", lambda self: blended(self.options.tile // FACTOR, 0))
    assert roughness(pipeline, sky(), pipeline.options(scale=1.0, min_size=SIDE)) > 1.02


REGIONS = ("protect=preview", "detail=0", "restoration_guidance=0.5", "control_scale=0.6")


@pytest.mark.parametrize("photo", [sky(), grass()], ids=["sky", "grass"])
@pytest.mark.parametrize("dial", REGIONS)
def test_regions_have_no_borders_that_are_seen(pipeline: SupirPipeline, photo: Tensor, dial: str) -> None:
    """Across the middle, where a region ends and fades, the result is no rougher than the rougher of its two sides."""
    options, half = pipeline.options(scale=1.0, min_size=SIDE), SIDE // 2
    found = {}
    for name, area in (("none", ""), ("all", f"0,0,100%,100%; {dial}"), ("half", f"0,0,{half},100%; {dial}")):
        [made] = pipeline(Picture(pixels=photo.clone()), options.replace(region=area))
        found[name] = energy(made.picture.pixels)
    fading = slice(half - WIDTH, half + options.region_edge + WIDTH)
    here = {name: float(each[:, fading].sum()) for name, each in found.items()}
    ratio = here["half"] / max(here["none"], here["all"])
    print(f"{dial}: {ratio:.4f} of the roughness of the rougher side")
    assert ratio < 1.02


def test_a_region_without_a_soft_edge_is_seen(pipeline: SupirPipeline) -> None:
    options = pipeline.options(scale=1.0, min_size=SIDE, color_fix="none", region_edge=0)
    region = f"0,0,{SIDE // 2},100%; protect"
    darker = Picture(pixels=sky())
    [made] = pipeline(darker, options.replace(region=region, blend=0.0))
    [plain] = pipeline(darker, options)
    place = slice(SIDE // 2 - 1, SIDE // 2)
    step = [
        (each.picture.pixels[..., place.stop] - each.picture.pixels[..., place.start]).abs().mean()
        for each in (made, plain)
    ]
    print(f"a step of {step[0]:.4f} where there was {step[1]:.4f}")
    assert step[0] > step[1]
