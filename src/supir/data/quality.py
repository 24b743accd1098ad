"""How good a photograph is: each criterion a function of pixels, and the verdict over all of them.

All are computed from integers, so that every machine comes to the same verdict.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

from supir.data.pixels import Pixels

Grey = npt.NDArray[np.uint8]
"""(H, W) grey levels, 0 to 255."""

FLAT_BLOCK = 32
"""Side of the blocks whose flatness is counted, pixels."""
FLAT_DEVIATION = 3.0
"""Standard deviation of grey levels below which a block is flat."""
HASH_BITS = 128

_ROWS = 512
_GRID = 8
_LUMINANCE_SUM = 3688  # of the table of ITU-T T.81, K.1, which libjpeg calls quality 50


def grey(pixels: Pixels) -> Grey:
    """(H, W, 3) to (H, W), by the luma of ITU-R BT.601."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def sharpness(levels: Grey) -> float:
    """Variance of the Laplacian (four neighbours): near 0 for a blurred picture, hundreds for a sharp one.

    Pictures below 3 x 3 have 0.
    """
    height, width = levels.shape
    if min(height, width) < 3:
        return 0.0
    total = squares = 0
    for top in range(0, height - 2, _ROWS):  # in strips: little memory, and the sums stay exact
        strip = levels[top : top + _ROWS + 2].astype(np.int32)
        laplacian = strip[:-2, 1:-1] + strip[2:, 1:-1] + strip[1:-1, :-2] + strip[1:-1, 2:] - 4 * strip[1:-1, 1:-1]
        total += int(laplacian.sum(dtype=np.int64))
        squares += int(np.einsum("ij,ij->", laplacian, laplacian, dtype=np.int64, casting="same_kind"))
    count = (height - 2) * (width - 2)
    return squares / count - (total / count) ** 2


def flat_share(levels: Grey) -> float:
    """Share of blocks of `FLAT_BLOCK` squared pixels that deviate less than `FLAT_DEVIATION`, 0 to 1.

    A picture smaller than a block is one block.
    """
    height, width = levels.shape
    rows, columns = min(FLAT_BLOCK, height), min(FLAT_BLOCK, width)
    blocks = levels[: height // rows * rows, : width // columns * columns].astype(np.int32)
    blocks = blocks.reshape(height // rows, rows, width // columns, columns)
    count = rows * columns
    total = blocks.sum(3).sum(1)
    squares = (blocks * blocks).sum(3).sum(1)
    variance = squares / count - (total / count) ** 2
    return float((variance < FLAT_DEVIATION**2).mean())


def blockiness(levels: Grey) -> float:
    """Steps between neighbours at the lines of an 8-pixel grid over the steps elsewhere; 1 where there is no grid.

    The grid may begin anywhere (a turned or cut JPEG), and must show along both axes: brick walls have it along one.
    """
    return min(_grid_steps(levels), _grid_steps(levels.T))


def _grid_steps(levels: Grey) -> float:
    if min(levels.shape) < 4 * _GRID:
        return 1.0
    steps = np.zeros(levels.shape[1] - 1, np.int64)
    for top in range(0, levels.shape[0], _ROWS):
        strip = levels[top : top + _ROWS].astype(np.int16)
        steps += np.abs(strip[:, 1:] - strip[:, :-1]).sum(0, dtype=np.int64)
    means = sorted(float(steps[phase::_GRID].mean()) / levels.shape[0] for phase in range(_GRID))
    return (means[-1] + 0.05) / (means[_GRID // 2 - 1] + 0.05)  # the small number: a plain area has no grid


def jpeg_quality(table: tuple[int, ...]) -> float:
    """The libjpeg quality, 1 to 100, whose luminance table has the sum of this one, of 64 numbers."""
    scale = 100 * max(1, sum(table)) / _LUMINANCE_SUM
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return min(100.0, max(1.0, quality))


def difference_hash(pixels: Pixels) -> int:
    """`HASH_BITS` bits: whether the picture gets brighter from each cell of an 8 x 8 grid to the right, then down.

    Stays nearly the same when a picture is enlarged, compressed or brightened.
    """
    image = Image.fromarray(pixels).convert("L")
    across = np.asarray(image.resize((9, 8), Image.Resampling.BOX)).astype(int)
    down = np.asarray(image.resize((8, 9), Image.Resampling.BOX)).astype(int)
    bits = np.concatenate([(across[:, 1:] > across[:, :-1]).ravel(), (down[1:] > down[:-1]).ravel()])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class Duplicates:
    """Pictures seen so far, by hash; finds one within the distance exactly, without looking at all of them.

    Two hashes that differ in at most d bits agree wholly in one of d + 1 parts; so only those that agree in a part
    are compared.
    """

    def __init__(self, distance: int) -> None:
        self._distance = distance
        edges = [part * HASH_BITS // (distance + 1) for part in range(distance + 2)]
        self._parts = [(low, (1 << (high - low)) - 1) for low, high in pairwise(edges) if high > low]
        self._seen: list[defaultdict[int, list[tuple[int, str]]]] = [defaultdict(list) for _ in self._parts]

    def find(self, value: int) -> str | None:
        """The name of a picture within the distance; which of several depends only on what was added before."""
        for seen, (low, mask) in zip(self._seen, self._parts, strict=True):
            for other, name in seen.get(value >> low & mask, ()):
                if (value ^ other).bit_count() <= self._distance:
                    return name
        return None

    def add(self, value: int, name: str) -> None:
        """Remembers a picture."""
        for seen, (low, mask) in zip(self._seen, self._parts, strict=True):
            seen[value >> low & mask].append((value, name))
