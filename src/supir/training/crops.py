"""Random crops of the stored tiles, and pictures for sample sheets."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from supir.errors import OptionError
from supir.files import write_whole
from supir.training.photographs import Crop, Pixels

SHARPNESS_PREFERENCE = 2.5
"""Power applied to the rank that is drawn: 1 takes all tiles alike, 2.5 the sharpest 40 % two times of three."""


class Tiles:
    """Tiles of one split, read through a memory map: ``pixels`` (N, S, S, 3) uint8 RGB, ``captions`` one a tile.

    They are stored sharpest first.

    Raises:
        OptionError: they are not there, or damaged.
    """

    def __init__(self, folder: Path, split: str = "train") -> None:
        self._where = folder, split
        try:
            self.pixels: Pixels = np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
            self.captions: list[str] = json.loads((folder / f"{split}_captions.json").read_bytes())
        except (OSError, ValueError, EOFError) as error:
            raise OptionError(f"{folder}: its {split} tiles cannot be read ({error}); make them again") from error
        if len(self.captions) != len(self.pixels):
            raise OptionError(f"{folder}: {len(self.pixels)} {split} tiles and {len(self.captions)} captions")

    num_left_out = 0

    def __len__(self) -> int:
        return len(self.pixels)

    def __reduce__(self) -> tuple[type[Tiles], tuple[Path, str]]:
        return Tiles, self._where  # a memory map would be pickled as all its pixels

    def draw(self, rng: np.random.Generator, size: int, number: int | None = None) -> Crop:
        """A crop as ``Photographs`` hands it out."""
        return Crop(*self.crop(rng, size))

    def crop(self, rng: np.random.Generator, size: int) -> tuple[Pixels, str]:
        """A random crop (size, size, 3), mirrored or transposed by chance, and its caption; sharp tiles more often."""
        index = int(len(self.pixels) * rng.random() ** SHARPNESS_PREFERENCE)
        spare = self.pixels.shape[1] - size
        top, left = (int(rng.integers(spare + 1)) for _ in range(2))
        crop = self.pixels[index, top : top + size, left : left + size]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if rng.random() < 0.1:
            crop = crop.transpose(1, 0, 2)
        return np.ascontiguousarray(crop), self.captions[index]


def to_tensor(pictures: list[Pixels]) -> Tensor:
    """uint8 (H, W, 3) pictures to (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_pixels(batch: Tensor) -> list[Pixels]:
    """(B, 3, H, W) in [-1, 1] to uint8 (H, W, 3) pictures."""
    scaled = batch.detach().clamp(-1, 1).add(1).mul(127.5).round().byte()
    return list(scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy())


def psnr(first: Tensor, second: Tensor) -> float:
    """Mean over the batch of the peak signal-to-noise ratio in dB, for pictures in [-1, 1]."""
    error = (first.clamp(-1, 1) - second.clamp(-1, 1)).square().mean((1, 2, 3))
    return float((10 * torch.log10(4 / error)).mean())


def write_sheet(path: Path | None, rows: list[list[Pixels]]) -> None:
    """One picture of all rows, each a list of equally high pictures; without a path there is nothing to do.

    Raises:
        OSError: it cannot be written.
    """
    if path is None:
        return
    sheet = np.concatenate([np.concatenate(row, 1) for row in rows], 0)
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    write_whole(path, data.tobytes(), lasting=False)
