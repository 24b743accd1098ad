"""Any tensor function in tiles: `tiled(fn, blended(tile, overlap))` acts like `fn`, on pictures of any size.

Tiles and their weights are separable: a layout gives the strips of the rows and those of the columns, a tile is a row
strip crossed with a column strip, its weight the product of theirs. Beside the result only the tiles in work are held:
the running weighted mean needs no buffer of weights, and where the tiles agree it returns their value to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, islice
from typing import Any

import torch
from torch import Tensor

from supir.errors import OptionError
from supir.tensors.arrays import ArrayLike, MemmapArray


@dataclass(frozen=True, eq=False)
class Strip:
    """One tile's extent along one axis."""

    start: int
    stop: int
    weight: Tensor
    """((stop - start) * scale,) float64, at the pixels of the output; sums to any positive number over the strips."""


@dataclass(frozen=True)
class Tile:
    """One tile: `index` counts rows outer, columns inner; the extents are those of the input."""

    index: int
    top: int
    bottom: int
    left: int
    right: int


#: (height, width, scale) -> strips of the rows, strips of the columns
Layout = Callable[[int, int, Fraction], tuple[list[Strip], list[Strip]]]


def blended(tile: int, overlap: int, *, fade: int | None = None, align: int = 1) -> Layout:
    """Evenly spread tiles of `tile` input pixels that overlap by `overlap` or a little more, with symmetric windows
    that sum to one.

    Neighbours are mixed by a raised cosine over `fade` pixels (default: the whole overlap) in the middle of their
    overlap; the rest of the overlap is halo, computed and dropped. With `fade=0` only the cores are kept: exact for
    functions whose reach is at most overlap / 2, and in general for a reach up to (overlap - fade) / 2. Starts are
    multiples of `align`, but for a last one of an unaligned extent, so every tile has the full size unless the picture
    is smaller than that. Raises OptionError unless 0 <= fade <= overlap <= tile / 2 and tile is a multiple of align.
    """
    width = overlap if fade is None else fade
    if tile < 1 or not 0 <= width <= overlap or 2 * overlap > tile:
        raise OptionError(
            f"tile {tile}, overlap {overlap}, fade {width}: need 0 <= fade <= overlap <= tile / 2. "
            "Use larger tiles or less overlap."
        )
    if align < 1 or tile % align or tile - overlap < align:
        raise OptionError(
            f"tile {tile}, overlap {overlap}, align {align}: need tile = k * align, tile - overlap >= align. "
            "Use larger tiles."
        )

    def strips(extent: int, scale: Fraction) -> list[Strip]:
        starts = _even_starts(extent, tile, overlap, align)
        stops = [min(start + tile, extent) for start in starts]
        middles = [(start + stop) / 2 for start, stop in zip(starts[1:], stops, strict=False)]
        found = []
        for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            centres = _pixel_centres(start, stop, scale)
            # The fades telescope, so the windows sum to one whatever their width.
            risen = _rise(centres, middles[index - 1], width) if index > 0 else torch.ones_like(centres)
            fallen = _rise(centres, middles[index], width) if index < len(middles) else torch.zeros_like(centres)
            found.append(Strip(start, stop, risen - fallen))
        return found

    return lambda height, width, scale: (strips(height, scale), strips(width, scale))


def reference_gaussian(tile: int, stride: int) -> Layout:
    """The public code's latent tiles: a window each `stride` pixels, one flush with the end, Gaussian weights.

    Their centre is half a pixel low vertically (reference section 7.2). Unlike there, an extent below a tile is one
    window.
    """
    variance = 0.01

    def strips(extent: int, scale: Fraction, middle: float) -> list[Strip]:
        if extent <= tile:
            return [Strip(0, extent, torch.ones(int(extent * scale), dtype=torch.float64))]
        starts = list(range(0, extent - tile + 1, stride))
        if starts[-1] + tile < extent:
            starts.append(extent - tile)
        positions = _pixel_centres(0, tile, scale) - 0.5
        weight = torch.exp(-(((positions - middle) / tile) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
        return [Strip(start, start + tile, weight) for start in starts]

    return lambda height, width, scale: (strips(height, scale, tile / 2), strips(width, scale, (tile - 1) / 2))


def tiled(
    fn: Callable[..., Tensor],
    layout: Layout,
    *,
    scale: int | Fraction = 1,
    batch: int = 1,
    with_tiles: bool = False,
    into: Callable[[tuple[int, ...]], MemmapArray] | None = None,
    kept: dict[Any, list[Tensor]] | None = None,
) -> Callable[..., Any]:
    """Make `fn`, a function of one or several tensors (B, C, H, W) of equal H and W, work tile by tile.

    Instead of tensors the result function also takes what gives windows of them (see `supir.tensors.arrays`). `into`
    makes the place of the result, of the shape it is given, where it shall not be a tensor; results are float32 then.
    `kept` holds the shares of the tiles by size, type and device, for what is tiled anew in every step by one layout.

    `scale` is fn's output size over its input size: 8 for a decoder, Fraction(1, 8) for an encoder. Up to `batch` tiles
    of equal size go into one call, joined on the batch axis (tile outer, sample inner). With `with_tiles`, fn also gets
    `tiles=[Tile, ...]`, those of the call. The result is (B, C', H * scale, W * scale) in the dtype fn returns; half
    precision is accumulated in float32. A picture of one tile is a plain call of `fn`. The result function raises
    OptionError when the tensors differ in size, when a tile's edges do not fall on output pixels, or when fn's result
    has another size than `scale` says.
    """
    factor = Fraction(scale)

    def whole(*tensors: ArrayLike) -> Tensor | MemmapArray:
        num_samples = tensors[0].shape[0]
        height, width = tensors[0].shape[-2:]
        if any(tensor.shape[-2:] != (height, width) or tensor.shape[0] != num_samples for tensor in tensors):
            raise OptionError(
                f"tensors of shapes {[tuple(tensor.shape) for tensor in tensors]} cannot be cropped alike; "
                "give equal batch, height and width."
            )
        rows, columns = layout(height, width, factor)
        _check_edges(rows + columns, factor)
        result: Tensor | MemmapArray | None = None
        shares: Iterator[Tensor] | None = None
        for group in _batches(_tiles(rows, columns), batch):
            crops = [
                torch.cat([part[..., tile.top : tile.bottom, tile.left : tile.right] for tile in group])
                for part in tensors
            ]
            output = fn(*crops, tiles=group) if with_tiles else fn(*crops)
            size = tuple(int(length * factor) for length in crops[0].shape[-2:])
            if output.shape[-2:] != size:
                raise OptionError(
                    f"fn turned a tile of {tuple(crops[0].shape[-2:])} into {tuple(output.shape[-2:])}; "
                    f"scale {factor} promises {size}."
                )
            if len(rows) * len(columns) == 1 and into is None:
                return output
            if result is None:
                shape = (num_samples, *output.shape[1:-2], int(height * factor), int(width * factor))
                kind = torch.promote_types(output.dtype, torch.float32)
                result = output.new_zeros(shape, dtype=kind) if into is None else into(shape)
            for tile, piece in zip(group, torch.split(output, num_samples), strict=True):
                top, left = int(tile.top * factor), int(tile.left * factor)
                place = (..., slice(top, top + piece.shape[-2]), slice(left, left + piece.shape[-1]))
                region = result[place]
                if shares is None:
                    shares = _shares(rows, columns, factor, region)
                    if kept is not None:
                        key = (height, width, factor, region.dtype, region.device)
                        shares = iter(kept[key] if key in kept else kept.setdefault(key, list(shares)))
                region.lerp_(piece.to(region.dtype), next(shares))
                if not isinstance(result, Tensor):
                    result[place] = region
        assert result is not None
        return result.to(output.dtype) if isinstance(result, Tensor) else result

    return whole


def mosaic(source: ArrayLike, tile: int, *, pieces: int = 4, align: int = 1) -> Tensor:
    """(B, C, tile, tile) or less, put together of pieces cut evenly from all over a picture (B, C, H, W).

    As rough and as bright as the whole is, which a shrunk picture would not be; smaller sides are taken whole. Pieces
    begin at multiples of ``align`` and are so large.
    """
    rows, columns = (_pieces(length, tile, pieces, align) for length in source.shape[-2:])
    return torch.cat([torch.cat([source[..., row, column] for column in columns], -1) for row in rows], -2)


def _pieces(extent: int, tile: int, pieces: int, align: int) -> list[slice]:
    if extent <= tile:
        return [slice(0, extent)]
    size = max(tile // pieces // align, 1) * align
    last = (extent - size) // align
    starts = [round(last * index / max(pieces - 1, 1)) * align for index in range(pieces)]
    return [slice(start, start + size) for start in starts]


def _even_starts(extent: int, tile: int, overlap: int, align: int) -> list[int]:
    if extent <= tile:
        return [0]
    step = (tile - overlap) // align * align
    span = extent - tile
    # Steps of whole `align` units over the span rounded up: so none is wider than `step`, not even the last.
    aligned = math.ceil(span / align) * align
    num_steps = math.ceil(aligned / step)
    inner = [aligned * index // (num_steps * align) * align for index in range(num_steps)]
    return [*inner, span]


def _pixel_centres(start: int, stop: int, scale: Fraction) -> Tensor:
    """The centres of the output pixels of a strip, in input pixels; an input pixel i covers i to i + 1."""
    num_pixels = int((stop - start) * scale)
    return start + (torch.arange(num_pixels, dtype=torch.float64) + 0.5) / float(scale)


def _rise(positions: Tensor, middle: float, width: int) -> Tensor:
    """0 before the fade, 1 after it, a raised cosine over `width` around `middle`."""
    if width == 0:
        return (positions >= middle).double()
    ramp = ((positions - middle) / width + 0.5).clamp(0, 1)
    return torch.sin(ramp * math.pi / 2) ** 2


def _tiles(rows: Sequence[Strip], columns: Sequence[Strip]) -> Iterator[Tile]:
    for number, row in enumerate(rows):
        for place, column in enumerate(columns):
            yield Tile(number * len(columns) + place, row.start, row.stop, column.start, column.stop)


def _batches(tiles: Iterator[Tile], batch: int) -> Iterator[list[Tile]]:
    """Runs of at most `batch` tiles of equal size."""
    for _, alike in groupby(tiles, key=lambda tile: (tile.bottom - tile.top, tile.right - tile.left)):
        while group := list(islice(alike, batch)):
            yield group


def _shares(rows: Sequence[Strip], columns: Sequence[Strip], scale: Fraction, like: Tensor) -> Iterator[Tensor]:
    """For each tile in turn, the share it takes in the weighted mean of itself and all tiles before it, per output
    pixel; in the type and on the device of ``like``.

    Only sums along one axis are kept: the weight so far is (rows above) x (all columns) + (this row) x (columns up to
    here).
    """
    all_columns = _summed(columns, scale)
    above = torch.zeros(int(rows[-1].stop * scale), dtype=torch.float64)
    for row in rows:
        here_y = _outputs(row, scale)
        beside = torch.zeros_like(all_columns)
        for column in columns:
            here_x = _outputs(column, scale)
            beside[here_x] += column.weight
            weight = torch.outer(row.weight, column.weight)
            so_far = torch.outer(above[here_y], all_columns[here_x]) + torch.outer(row.weight, beside[here_x])
            # Where nothing has any weight yet, a later tile decides.
            share = torch.where(weight > 0, weight / so_far, torch.zeros_like(weight))
            yield share.to(like.dtype).to(like.device)  # narrowed here: not every device has float64
        above[here_y] += row.weight


def _summed(strips: Sequence[Strip], scale: Fraction) -> Tensor:
    total = torch.zeros(int(strips[-1].stop * scale), dtype=torch.float64)
    for strip in strips:
        total[_outputs(strip, scale)] += strip.weight
    return total


def _outputs(strip: Strip, scale: Fraction) -> slice:
    return slice(int(strip.start * scale), int(strip.stop * scale))


def _check_edges(strips: Sequence[Strip], scale: Fraction) -> None:
    for strip in strips:
        if (strip.start * scale).denominator != 1 or (strip.stop * scale).denominator != 1:
            raise OptionError(
                f"a tile from {strip.start} to {strip.stop} does not fall on whole output pixels at scale {scale}; "
                f"make the picture, the tile and align multiples of {scale.denominator}."
            )
