"""Tiles: the same as no tiles where that can be, without seams where it cannot, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from supir.errors import OptionError
from supir.tensors.tiling import Layout, Strip, Tile, blended, reference_gaussian, tiled

LAYOUTS: dict[str, Layout] = {
    "blended": blended(16, 6),
    "faded": blended(16, 6, fade=3),
    "cores": blended(16, 8, fade=0),
    "aligned": blended(16, 4, align=4),
    "no overlap": blended(16, 0),
    "gaussian": reference_gaussian(16, 8),
}
SIZES = [(1, 1), (1, 50), (7, 16), (16, 17), (17, 33), (24, 28), (31, 64), (65, 45), (100, 3)]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_a_pointwise_function_is_unchanged_to_the_last_bit(name: str, size: tuple[int, int]) -> None:
    x, y = torch.randn(2, 3, *size), torch.randn(2, 1, *size)

    def fn(x: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(x) * y + 0.1

    for batch in (1, 3):
        assert torch.equal(tiled(fn, LAYOUTS[name], batch=batch)(x, y), fn(x, y))


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(8), Fraction(1, 4)])
@pytest.mark.parametrize(
    ("tile", "overlap", "fade", "align"), [(16, 6, 6, 4), (32, 8, 4, 8), (16, 8, 0, 4), (8, 0, 0, 4)]
)
def test_windows_sum_to_one_and_cover_everything(
    scale: Fraction, tile: int, overlap: int, fade: int, align: int
) -> None:
    layout = blended(tile, overlap, fade=fade, align=align)
    for extent in [4, 8, 12, 36, 100, 128, 252]:
        strips, _ = layout(extent, extent, scale)
        total = torch.zeros(int(extent * scale), dtype=torch.float64)
        for strip in strips:
            assert float(strip.weight.min()) >= 0
            total[int(strip.start * scale) : int(strip.stop * scale)] += strip.weight
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


@pytest.mark.parametrize("align", [1, 4, 8])
def test_positions_are_aligned_full_and_overlap_enough(align: int) -> None:
    tile, overlap = 32, 8
    for extent in range(tile + 1, 200):
        strips, _ = blended(tile, overlap, align=align)(extent, extent, Fraction(1))
        assert all(strip.stop - strip.start == tile for strip in strips)
        assert all(strip.start % align == 0 for strip in strips[:-1])
        assert (strips[0].start, strips[-1].stop) == (0, extent)
        gaps = [earlier.stop - later.start for earlier, later in pairwise(strips)]
        assert min(gaps) >= overlap
        assert len(strips) <= math.ceil((extent - tile) / (tile - overlap)) + (2 if extent % align else 1)


def test_windows_are_symmetric() -> None:
    strips, columns = blended(16, 6)(40, 40, Fraction(2))
    for strip, mirrored in zip(strips, reversed(strips), strict=True):
        torch.testing.assert_close(strip.weight, mirrored.weight.flip(0))
    for row, column in zip(strips, columns, strict=True):
        assert torch.equal(row.weight, column.weight)


def reach(radius: int) -> Callable[[Tensor], Tensor]:
    """A convolution that sees `radius` pixels to every side."""
    kernel = torch.randn(3, 3, 2 * radius + 1, 2 * radius + 1, generator=torch.Generator().manual_seed(0))
    return lambda x: F.conv2d(x, kernel / kernel.norm(), padding=radius)


@pytest.mark.parametrize(("overlap", "fade", "radius"), [(8, 0, 4), (8, 4, 2), (10, 2, 4)])
@pytest.mark.parametrize("num_gaps", [1, 2])
def test_a_finite_reach_within_the_halo_is_exact(overlap: int, fade: int, radius: int, num_gaps: int) -> None:
    tile = 24
    layout = blended(tile, overlap, fade=fade)
    tight = torch.randn(1, 3, tile + num_gaps * (tile - overlap), 45)  # the overlap is no larger than asked
    for x in (tight, torch.randn(1, 3, 33, 61)):
        torch.testing.assert_close(tiled(reach(radius), layout)(x), reach(radius)(x), rtol=0, atol=1e-5)
    beyond = tiled(reach(radius + 2), layout)(tight) - reach(radius + 2)(tight)
    assert float(beyond.abs().max()) > 1e-3


@pytest.mark.parametrize("size", [(1, 1), (9, 5), (16, 40), (37, 50)])
def test_a_decoder_scale(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)

    def fn(part: Tensor) -> Tensor:
        return part.repeat_interleave(8, -1).repeat_interleave(8, -2)[:, :2]

    assert torch.equal(tiled(fn, blended(12, 4), scale=8, batch=2)(x), fn(x))


@pytest.mark.parametrize("size", [(8, 8), (24, 64), (72, 104)])
def test_an_encoder_scale(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)

    def fn(part: Tensor) -> Tensor:
        return F.avg_pool2d(part, 8).repeat(1, 2, 1, 1)

    found = tiled(fn, blended(32, 8, align=8), scale=Fraction(1, 8))(x)
    torch.testing.assert_close(found, fn(x))


def test_edges_between_output_pixels_are_refused() -> None:
    run = tiled(lambda part: F.avg_pool2d(part, 8), blended(32, 8), scale=Fraction(1, 8))
    with pytest.raises(OptionError, match="multiples of 8"):
        run(torch.zeros(1, 1, 60, 64))


def test_wrong_scales_and_unequal_tensors_are_refused() -> None:
    with pytest.raises(OptionError, match="promises"):
        tiled(lambda part: part, blended(8, 2), scale=2)(torch.zeros(1, 1, 20, 20))
    with pytest.raises(OptionError, match="equal batch, height and width"):
        tiled(lambda a, b: a, blended(8, 2))(torch.zeros(1, 1, 20, 20), torch.zeros(1, 1, 20, 21))


@pytest.mark.parametrize(
    "options", [{"overlap": 9}, {"overlap": 4, "fade": 5}, {"overlap": -1}, {"overlap": 0, "align": 3}]
)
def test_impossible_layouts_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="tile 16"):
        blended(16, **options)


def test_a_picture_of_one_tile_is_one_plain_call() -> None:
    calls = []
    x = torch.randn(1, 3, 16, 9)
    assert tiled(lambda part: calls.append(part) or part, blended(16, 4))(x).shape == x.shape
    assert len(calls) == 1
    assert torch.equal(calls[0], x)


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_tiles_are_joined_and_numbered(batch: int) -> None:
    x, seen = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 40, 40), []

    def fn(part: Tensor, tiles: Sequence[Tile]) -> Tensor:
        assert len(part) == 2 * len(tiles) <= 2 * batch
        assert torch.equal(part[:, 0, 0, 0], torch.arange(2.0).repeat(len(tiles)))
        seen.extend(tile.index for tile in tiles)
        return part

    assert torch.equal(tiled(fn, blended(16, 4), batch=batch, with_tiles=True)(x), x)
    assert seen == list(range(9))


def test_half_precision_is_accumulated_in_float32() -> None:
    x = torch.randn(1, 1, 40, 40).bfloat16()

    def fn(part: Tensor) -> Tensor:
        return part + part.mean()

    found, in_float = (tiled(each, blended(16, 8))(x) for each in (fn, lambda part: fn(part).float()))
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, in_float.bfloat16())


def seam_energy(result: Tensor, borders: Sequence[int]) -> float:
    """Mean square step across the tile borders, over that everywhere else: near 1 when no border shows."""
    steps = result.diff(dim=-1).double().square().mean(dim=(0, 1, 2))
    at_border = torch.zeros(len(steps), dtype=torch.bool)
    at_border[[border - 1 for border in borders]] = True
    return float(steps[at_border].mean() / steps[~at_border].mean())


def own_brightness(part: Tensor) -> Tensor:
    """What a network with global normalisation does: every tile is shifted by its own mean."""
    return part - part.mean(dim=(-2, -1), keepdim=True)


def test_no_seam_shows_and_the_measure_would_see_one() -> None:
    ramp = torch.linspace(0, 6, 160) + 0.02 * torch.randn(1, 1, 64, 160, generator=torch.Generator().manual_seed(0))
    tile, overlap = 64, 32

    def borders(layout: Layout) -> list[int]:
        _, columns = layout(64, 160, Fraction(1))
        middles = [(later.start + earlier.stop) // 2 for earlier, later in pairwise(columns)]
        return sorted(middles + [strip.start for strip in columns[1:]] + [strip.stop for strip in columns[:-1]])

    blend, cut = blended(tile, overlap), blended(tile, overlap, fade=0)
    assert seam_energy(tiled(own_brightness, blend)(ramp), borders(blend)) < 1.5
    assert seam_energy(tiled(own_brightness, cut)(ramp), borders(cut)) > 20


class LargestTensor(TorchDispatchMode):
    """Sizes of the tensors that are made, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            shared = {each.untyped_storage().data_ptr() for each in args if isinstance(each, Tensor)}
            if result.untyped_storage().data_ptr() not in shared:
                self.sizes.append(result.numel())
        return result


def test_memory_is_the_result_and_the_tiles_in_work() -> None:
    x, batch = torch.zeros(1, 3, 600, 500), 2
    with LargestTensor() as made:
        result = tiled(lambda part: part + 1, blended(64, 16), batch=batch)(x)
    sizes = sorted(made.sizes, reverse=True)
    assert sizes[0] == result.numel()
    assert max(sizes[1:]) <= batch * 3 * 64 * 64


def test_strips_of_the_reference_overlap_as_it_says() -> None:
    rows, _ = reference_gaussian(16, 8)(28, 28, Fraction(1))
    assert [(row.start, row.stop) for row in rows] == [(0, 16), (8, 24), (12, 28)]
    assert isinstance(rows[0], Strip)
