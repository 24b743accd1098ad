"""Pictures to look at: input enlarged, clean preview, result, and the original where the input was made from one.

    python bench/contact_sheet.py PICTURES... -o sheet.png                  # real low-quality pictures
    python bench/contact_sheet.py PICTURES... -o sheet.png --degrade light  # originals, degraded here by a recipe
    python bench/contact_sheet.py PICTURES... -o sheet.png --degrade 4      # originals, reduced 4 times
    python bench/contact_sheet.py PICTURES... -o sheet.png --details 0 1           # a result of each detail

``--at X Y`` shows the pixels around there, in shares of the sides, in place of the middle.
Prints the mean PSNR of every column against the original, over all pictures, which says little about looks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from supir import Picture, SupirPipeline, find_pictures, read, write
from supir.degradation.process import apply
from supir.degradation.recipes import RECIPES
from supir.image import resize


def degraded(original: Tensor, how: str, seed: int) -> tuple[Tensor, float]:
    """A low-quality picture of (3, H, W) in [-1, 1], and the scale that brings it back to size."""
    if how in RECIPES:
        unit = original.permute(1, 2, 0).numpy() / 2 + 0.5
        found = apply(RECIPES[how].draw(np.random.default_rng(seed)), unit, restore_size=False)
        return torch.from_numpy(found).permute(2, 0, 1) * 2 - 1, original.shape[1] / len(found)
    factor = int(how)
    small = resize(original, original.shape[1] // factor, original.shape[2] // factor)
    return ((small + 1) * 127.5).round() / 127.5 - 1, float(factor)


def psnr(found: Tensor, original: Tensor) -> float:
    """Decibels over pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / (found - original).square().mean()))


def row(pipeline: SupirPipeline, path: Path, options: argparse.Namespace, index: int) -> list[Tensor]:
    """The cells of one picture, all of one size."""
    original = read(path).rgb
    if options.degrade:
        sides = [side // 8 * 8 for side in original.shape[1:]]
        original = original[:, : sides[0], : sides[1]]
        given, scale = degraded(original, options.degrade, index)
    else:
        given, scale = original, options.scale
    settings = [{"detail": detail} for detail in options.details] or [{}]
    found = [
        pipeline(Picture(pixels=given.contiguous()), preset=options.preset, scale=scale, **options.set | setting)[0]
        for setting in settings
    ]
    made = (
        [one.picture.pixels for one in found] if options.details else [found[0].preview.pixels, found[0].picture.pixels]
    )
    height, width = original.shape[1:] if options.degrade else made[0].shape[1:]
    cells = [resize(each, height, width) for each in (given, *made)]
    return [*cells, original] if options.degrade else cells


def crop(cell: Tensor, side: int, at: tuple[float, float] = (0.5, 0.5)) -> Tensor:
    """``side`` x ``side`` pixels around ``at`` (x, y in shares of the sides), smaller pictures padded with white."""
    height, width = cell.shape[1:]
    top, left = (
        max(0, min(round(share * length) - side // 2, length - side))
        for share, length in zip(reversed(at), (height, width), strict=True)
    )
    part = cell[:, top : top + side, left : left + side]
    return torch.nn.functional.pad(part, (0, side - part.shape[2], 0, side - part.shape[1]), value=1.0)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--degrade", help="a recipe's name, or how many times to reduce")
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--preset", default="quality")
    parser.add_argument("--set", type=json.loads, default={}, help="options over the preset, as JSON")
    parser.add_argument(
        "--details", type=float, nargs="+", default=[], help="a result of each in place of preview and result"
    )
    parser.add_argument(
        "--at",
        type=float,
        nargs=2,
        default=(0.5, 0.5),
        metavar=("X", "Y"),
        help="what is shown, in shares of the sides",
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--side", type=int, default=320, help="pixels of the middle of each picture that are shown")
    options = parser.parse_args()
    pipeline = SupirPipeline.from_pretrained(options.model)
    pipeline.set_progress_bar_config(disable=True)
    rows = [row(pipeline, path, options, index) for index, path in enumerate(find_pictures(options.pictures))]
    if options.degrade:
        names = ("input", *(map(str, options.details) if options.details else ("preview", "result")))
        means = {name: np.mean([psnr(cells[i], cells[-1]) for cells in rows]) for i, name in enumerate(names)}
        print(json.dumps({name: round(float(mean), 2) for name, mean in means.items()}))
    sheet = torch.cat(
        [torch.cat([crop(cell, options.side, options.at) for cell in cells], dim=2) for cells in rows], dim=1
    )
    write(Picture(pixels=sheet.contiguous()), options.output)


if __name__ == "__main__":
    main()
