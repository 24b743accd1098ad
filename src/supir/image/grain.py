"""Grain of a photograph: measured in it, and put back into what was restored.

What is left of the luma of flat parts without their slopes tells how strong the grain is at each brightness and how
its power spreads over the frequencies. Grain of that kind is then drawn anew: it depends on the seed and on the place
in the photograph alone, so it is the same whatever tiles or bands a picture is made in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from supir.image.picture import Picture, Reader, along, luma
from supir.image.sizes import Resampling

_SIDE = 32
"""Pixels of the squares that are looked at."""
_MOST = 40
"""Squares along one side, at most."""
_BINS = 8
"""Of brightness."""
_FEW = 6
"""Squares that a brightness must have for its strength to be told."""
_WEAKEST = 1 / 255
"""Standard deviation below which nobody sees grain: rounding, or noise of a good sensor."""
_EVEN, _DIRECTED = 0.5, 0.3
"""What the variances of a square's parts may vary by, and its slopes have of one direction, at most, to be flat."""
_STEADY = 0.07
"""Deviation, among flat squares, of how much neighbouring pixels are alike: texture is not the same everywhere."""
_WIDEST = 2.0
"""Times the flattest squares' deviation: no grain is stronger at any brightness."""
_DARK, _BRIGHT = 6 / 255, 249 / 255
"""Beyond them grain is cut off."""
_ROUNDING = 1 / 255 / 12**0.5
"""Standard deviation of what 8 bits leave."""
_REACH = 7
"""Pixels that grain is alike over, to each side."""
_CELL = 256
"""Pixels of the squares that are drawn at once."""


@dataclass(frozen=True, eq=False)
class Grain:
    """The grain of one photograph."""

    strength: Tensor
    """(bins,): standard deviation by luma, in [0, 1]."""
    kernel: Tensor
    """(k, k): what makes grain of white noise, both of variance 1."""
    height: int
    """Of the photograph, in pixels."""
    width: int

    def note(self, share: float) -> dict[str, str]:
        """For the record."""
        return {"grain": f"{share:g} of {float(self.strength.mean()) * 255:.1f} levels of 255, drawn anew"}

    def put_on(self, picture: Picture, share: float, seed: int, *, height: int = 0, top: int = 0) -> Picture:
        """With grain on it, at its size relative to the photograph: the same in every channel.

        Args:
            picture: of the photograph's aspect, or a band of rows of one.
            share: of the photograph's strength.
            seed: another draws other grain.
            height: of the whole, in pixels, where this is a band; 0: this is the whole.
            top: row at which the band begins.
        """
        pixels, size = picture.pixels.clone(), (height or picture.height, picture.width)
        for first in range(0, picture.height, _CELL):
            part = pixels[:, first : first + _CELL]
            rows = slice(top + first, top + first + part.shape[1])
            grey = (part if picture.grey else luma(part))[0] * 0.5 + 0.5
            part += 2 * share * along(self.strength, grey * _BINS - 0.5) * self._drawn(seed, size, rows)
        return replace(picture, pixels=pixels.clamp_(-1, 1))

    def _drawn(self, seed: int, size: tuple[int, int], rows: slice) -> Tensor:
        """(rows, width): grain of variance 1 in the photograph's pixels, at the size of a result."""
        down, across = Resampling(self.height, size[0]), Resampling(self.width, size[1])
        needed = down.needed(rows)
        noise = _white(seed, slice(needed.start, needed.stop + 2 * _REACH), self.width + 2 * _REACH)
        grain = F.conv2d(noise[None, None], self.kernel[None, None])[0, 0]
        return down.weights(rows) @ grain @ across.weights(slice(0, size[1])).T


def grain_of(read: Reader, height: int, width: int) -> Grain | None:
    """The grain of a photograph; None where it has none that is seen, or too few flat parts to tell."""
    squares = _squares(read, height, width)
    if squares is None:
        return None
    means = squares.mean((1, 2))
    inside = (means > _DARK) & (means < _BRIGHT)
    if int(inside.sum()) < _FEW:
        return None
    rests = _without_slopes(squares)[inside]
    means = means[inside]
    deviations = rests.square().mean((1, 2)).sqrt()
    flat = _flat(rests)
    strength = _by_brightness(means, deviations, flat)
    if strength is None or float(strength.mean()) < _WEAKEST:
        return None
    place = (means * _BINS).long().clamp(0, _BINS - 1)
    like = flat & ((deviations / strength[place]).sub(1).abs() < 0.3)
    if int(like.sum()) < _FEW or float(_alike(rests[like]).std()) > _STEADY:
        return None
    return Grain(strength, _kernel(rests[like] / deviations[like, None, None]), height, width)


def _squares(read: Reader, height: int, width: int) -> Tensor | None:
    """(n, side, side) of luma, evenly over the picture."""
    rows, columns = height // _SIDE, width // _SIDE
    if min(rows, columns) < 2:
        return None
    tops, lefts = (
        sorted({round(index * (number - 1) / (min(number, _MOST) - 1)) * _SIDE for index in range(min(number, _MOST))})
        for number in (rows, columns)
    )
    found = []
    for top in tops:
        band = read(slice(top, top + _SIDE), slice(0, columns * _SIDE))
        grey = (band if len(band) == 1 else luma(band))[0]
        found.append(torch.stack([grey[:, left : left + _SIDE] for left in lefts]))
    return torch.cat(found)


def _without_slopes(squares: Tensor) -> Tensor:
    """Without what a plane and a bend make of it in each direction."""
    places = torch.linspace(-1, 1, _SIDE)
    basis, _ = torch.linalg.qr(torch.stack([torch.ones(_SIDE), places, places**2], 1))
    return squares - basis @ (basis.T @ squares @ basis) @ basis.T


def _flat(rests: Tensor) -> Tensor:
    """Which squares hold nothing but what is alike everywhere and in all directions."""
    parts = F.avg_pool2d(rests.square()[:, None], _SIDE // 4).flatten(1)
    even = parts.std(1) < _EVEN * parts.mean(1)
    down, across = rests.diff(dim=1)[:, :, :-1], rests.diff(dim=2)[:, :-1]
    tall, wide, both = (each.mean((1, 2)) for each in (down.square(), across.square(), down * across))
    directed = ((tall - wide).square() + 4 * both.square()).sqrt()
    return even & (directed < _DIRECTED * (tall + wide))


def _alike(rests: Tensor) -> Tensor:
    """(n,): how much of a square's pixels is their neighbours' too."""
    pairs = (rests[:, 1:] * rests[:, :-1]).mean((1, 2)) + (rests[:, :, 1:] * rests[:, :, :-1]).mean((1, 2))
    return pairs / 2 / rests.square().mean((1, 2))


def _by_brightness(means: Tensor, deviations: Tensor, flat: Tensor) -> Tensor | None:
    """(bins,): what the flatter of the flat squares of each brightness have; its neighbour's where they are few."""
    place = (means * _BINS).long().clamp(0, _BINS - 1)
    known: dict[int, float] = {}
    most = _WIDEST * float(deviations.quantile(0.03))
    for index in range(_BINS):
        found = deviations[flat & (place == index)]
        if len(found) >= _FEW:
            seen = min(float(found.quantile(0.15)), most)
            known[index] = max(seen**2 - _ROUNDING**2, 0.0) ** 0.5
    if not known:
        return None
    return torch.tensor([known[min(known, key=lambda other: abs(other - index))] for index in range(_BINS)])


def _kernel(rests: Tensor) -> Tensor:
    """The filter of the mean spectrum of squares."""
    window = torch.hann_window(_SIDE, periodic=False)
    power = torch.fft.fft2(rests * window * window[:, None]).abs().square().mean(0)
    whole = torch.fft.fftshift(torch.fft.ifft2(power.sqrt()).real)
    middle = _SIDE // 2
    kernel = whole[middle - _REACH : middle + _REACH + 1, middle - _REACH : middle + _REACH + 1].contiguous()
    return kernel / kernel.square().sum().sqrt()


def _white(seed: int, rows: slice, width: int) -> Tensor:
    """Rows of white noise of variance 1, drawn in cells that know their own seeds."""
    found = torch.empty(rows.stop - rows.start, width)
    for row in range(rows.start // _CELL, -(-rows.stop // _CELL)):
        top = row * _CELL
        first, last = max(rows.start, top), min(rows.stop, top + _CELL)
        for left in range(0, width, _CELL):
            mixed = (seed * 0x9E3779B97F4A7C15 + row * 0xC2B2AE3D27D4EB4F + left * 0x165667B19E3779F9) % 2**63
            cell = torch.randn(_CELL, _CELL, generator=torch.Generator().manual_seed(mixed))
            right = min(width, left + _CELL)
            found[first - rows.start : last - rows.start, left:right] = cell[first - top : last - top, : right - left]
    return found
