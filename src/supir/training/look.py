"""Look at a model: good pictures, degraded in four ways, restored by the whole pipeline.

    python -m supir.training.look --tiles TILES --out SHEET.png [--model MODEL] [--set num_steps=8 ...]
    python -m supir.training.look --photos FOLDER --out SHEET.png [--features WEIGHTS]

A row of the sheet is one degradation of one picture: bicubic enlargement, preview, result, truth. The pictures are
detailed held-out tiles, or those of a folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

import supir.models.thin_autoencoder  # noqa: F401  (diffusers loads only from imported modules)
from supir.degradation.second_order import RECIPES, Degradation, Step, apply, draw
from supir.image import find_pictures, read
from supir.pipeline import SupirPipeline
from supir.training.by_hand import prepare
from supir.training.crops import Tiles, psnr, to_pixels, to_tensor, write_sheet
from supir.training.features import FeatureDistance
from supir.training.photographs import Pixels

logger = logging.getLogger(__name__)


def _plain(scale: int, quality: int | None = None, noise: float = 0) -> Degradation:
    steps = [Step("shrink", (("fraction", 1 / scale),))]
    if noise:
        steps.append(Step("gaussian_noise", (("strength", noise), ("grey", False), ("seed", 0))))
    if quality is not None:
        steps.append(Step("jpeg", (("quality", quality),)))
    return Degradation(tuple(steps))


def degradations() -> dict[str, Degradation]:
    """The four ways, by name; the last drawn once from the full second-order recipe."""
    return {
        "x2": _plain(2),
        "x4": _plain(4),
        "x2 noise 8 jpeg 60": _plain(2, 60, 8),
        "second order": draw(np.random.default_rng(5), RECIPES["default"]),
    }


def heldout(tiles: Path, num_pictures: int) -> list[Pixels]:
    """Held-out tiles from the more detailed half."""
    found = Tiles(tiles, "heldout").pixels  # sharpest first
    step = max(1, len(found) // (2 * num_pictures))
    return [np.ascontiguousarray(tile) for tile in found[::step][:num_pictures]]


def photos(folder: Path, num_pictures: int) -> list[Pixels]:
    """The first pictures of a folder, at most 512 pixels a side, both sides cut to a multiple of 8."""
    found = []
    for path in find_pictures([str(folder)])[:num_pictures]:
        (pixels,) = to_pixels(read(path).rgb[None, :, :512, :512])
        height, width = (side // 8 * 8 for side in pixels.shape[:2])
        found.append(np.ascontiguousarray(pixels[:height, :width]))
    return found


def look(
    pipeline: SupirPipeline, truths: list[Pixels], out: Path, settings: dict[str, Any], features: Path | None
) -> None:
    """Write the sheet and log, for each degradation, the mean PSNR (and feature distance) of its three pictures."""
    distance = FeatureDistance(features) if features else None
    rows: list[list[Pixels]] = []
    for name, degradation in degradations().items():
        found: list[list[float]] = []
        begun = time.perf_counter()
        for truth in truths:
            row = [*restored_row(pipeline, truth, degradation, settings), truth]
            rows.append(row)
            wanted = to_tensor([truth])
            found.append([psnr(to_tensor([shown]), wanted) for shown in row[:3]])
            if distance is not None:
                found[-1] += [float(distance(to_tensor([shown]), wanted)) for shown in row[:3]]
        seconds = (time.perf_counter() - begun) / len(truths)
        means = [f"{value:.2f}" if value > 1 else f"{value:.3f}" for value in np.mean(found, 0)]
        logger.info("%s: bicubic, preview, result: %s; %.1f s a picture", name, ", ".join(means), seconds)
    width = max(sum(shown.shape[1] for shown in row) for row in rows)
    write_sheet(
        out, [[*row, np.zeros((len(row[0]), width - sum(p.shape[1] for p in row), 3), np.uint8)] for row in rows]
    )


@torch.no_grad()
def restored_row(
    pipeline: SupirPipeline, truth: Pixels, degradation: Degradation, settings: dict[str, Any]
) -> list[Pixels]:
    """Bicubic enlargement, preview and result of a degraded picture, all of the truth's size."""
    small = np.round(apply(degradation, (truth / 255).astype(np.float32), restore_size=False) * 255).astype(np.uint8)
    [restored] = pipeline(Image.fromarray(small), scale=truth.shape[0] / small.shape[0], **settings)
    bicubic = cv2.resize(small, truth.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return [bicubic.astype(np.uint8)] + [
        to_pixels(shown.rgb[None])[0] for shown in (restored.preview, restored.picture)
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tiles", type=Path, help="folder made by supir.data.debian_photos: its held-out tiles")
    source.add_argument("--photos", type=Path, help="folder of good pictures")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", type=Path, help="EfficientNet-lite0 weights: log the feature distance as well")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], help="options as name=value, values in JSON")
    options = parser.parse_args()
    prepare(options.threads)
    pipeline = SupirPipeline.from_pretrained(options.model)
    pipeline.set_progress_bar_config(disable=True)
    settings = {name: json.loads(value) for name, value in (item.split("=", 1) for item in options.set)}
    truths = photos(options.photos, options.pictures) if options.photos else heldout(options.tiles, options.pictures)
    look(pipeline, truths, options.out, settings, options.features)


if __name__ == "__main__":
    main()
