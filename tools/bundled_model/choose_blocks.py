"""Which of Real-ESRGAN x4plus's blocks it can spare, in their order, as `SPARED` of the stage `restorer` has it.

    python tools/bundled_model/choose_blocks.py --tiles photos/train.npy --teacher x4plus.bin

Step by step the block goes without which the pictures change least, in the mean of small pictures of several kinds;
nothing is trained. It takes 23 + 22 + ... passes of 8 pictures, some minutes of two cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from supir.degradation.process import apply
from supir.degradation.recipes import draw
from supir.models.restorers import RealEsrgan
from supir.training.pairs import to_tensor
from supir.training.stages.restorer import load_teacher

SIDE = 48
"""Of the small pictures, in pixels: a fourth of what is cut from the tiles."""
KINDS = ("", "sr4", "sr4", "blur2_sr4_noise20_jpeg50")
"""Recipes in turn; none takes the pixels of the tiles themselves for a small picture."""


def small_pictures(tiles: Path, number: int) -> Tensor:
    """(number, 3, SIDE, SIDE) in [-1, 1]."""
    known, chance, found = np.load(tiles, mmap_mode="r"), np.random.default_rng(77), []
    for index in range(number):
        kind = KINDS[index % len(KINDS)]
        side = 4 * SIDE if kind else SIDE
        top, left = chance.integers(0, known.shape[1] - side + 1, 2)
        cut = np.array(known[chance.integers(len(known))][top : top + side, left : left + side])
        if kind:
            small = apply(draw(chance, kind), (cut / 255).astype(np.float32), restore_size=False)
            cut = np.round(small * 255).astype(np.uint8)
        found.append(cut)
    return to_tensor(found)


@torch.no_grad()
def pictures_by(teacher: RealEsrgan, small: Tensor, blocks: Sequence[int]) -> Tensor:
    """What it makes by some of its blocks alone."""
    first = h = teacher.conv_in(small / 2 + 0.5)
    for index in blocks:
        h = teacher.blocks[index](h)
    return teacher.painted(first + teacher.conv_body(h)).float()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, required=True, help="as tools/bundled_model/photographs.py makes them")
    parser.add_argument("--teacher", type=Path, required=True, help="Real-ESRGAN x4plus for ncnn")
    parser.add_argument("--pictures", type=int, default=8)
    options = parser.parse_args()
    teacher = load_teacher(options.teacher).bfloat16().to(memory_format=torch.channels_last)
    small = small_pictures(options.tiles, options.pictures).bfloat16().contiguous(memory_format=torch.channels_last)
    left = list(range(len(teacher.blocks)))
    whole = pictures_by(teacher, small, left)

    def change(spared: int) -> float:
        found = pictures_by(teacher, small, [index for index in left if index != spared])
        return float((found - whole).abs().mean() * 255)

    say = sys.stdout.write
    say("spared  blocks left  grey levels of change\n")
    while len(left) > 1:
        changes = {index: change(index) for index in left}
        least = min(changes, key=changes.__getitem__)
        left.remove(least)
        say(f"{least:6}  {len(left):11}  {changes[least]:.2f}\n")


if __name__ == "__main__":
    main()
