"""Look at a model: held-out pictures, degraded in four ways, restored by the whole pipeline.

    python -m supir.training.look --tiles TILES --out SHEET.png [--model MODEL] [--set num_steps=8 ...]

A row of the sheet is one degradation of one picture: bicubic enlargement, preview, result, truth.
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
from PIL import Image

import supir.models.thin_autoencoder  # noqa: F401  (diffusers loads only from imported modules)
from supir.degradation.second_order import RECIPES, Degradation, Step, apply, draw
from supir.pipeline import SupirPipeline
from supir.training.crops import Pixels, Tiles, psnr, to_pixels, to_tensor, write_sheet
from supir.training.loop import prepare

logger = logging.getLogger(__name__)


def _plain(scale: int, quality: int | None = None) -> Degradation:
    steps = [Step("shrink", (("fraction", 1 / scale),))]
    if quality is not None:
        steps.append(Step("jpeg", (("quality", quality),)))
    return Degradation(tuple(steps))


def degradations() -> dict[str, Degradation]:
    """The four ways, by name; the last drawn once from the full second-order recipe."""
    return {
        "x2": _plain(2),
        "x4": _plain(4),
        "x2 jpeg 60": _plain(2, 60),
        "second order": draw(np.random.default_rng(5), RECIPES["default"]),
    }


def look(pipeline: SupirPipeline, tiles: Path, out: Path, num_pictures: int, settings: dict[str, Any]) -> None:
    """Write the sheet and log the mean PSNR of bicubic, preview and result for each degradation."""
    heldout = Tiles(tiles, "heldout").pixels
    sharp = [cv2.Laplacian(cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var() for tile in heldout]
    busy = np.argsort(sharp)[::-1][:: max(1, len(sharp) // (2 * num_pictures))][:num_pictures]
    rows: list[list[Pixels]] = []
    for name, degradation in degradations().items():
        found: list[tuple[float, ...]] = []
        begun = time.perf_counter()
        for index in busy:
            truth = np.ascontiguousarray(heldout[index])
            small = np.round(apply(degradation, (truth / 255).astype(np.float32), restore_size=False) * 255)
            photo = Image.fromarray(small.astype(np.uint8))
            scale = truth.shape[0] / small.shape[0]
            [restored] = pipeline(photo, scale=scale, **settings)
            bicubic = cv2.resize(small.astype(np.uint8), truth.shape[1::-1], interpolation=cv2.INTER_CUBIC)
            preview, result = (to_pixels(shown.rgb[None])[0] for shown in (restored.preview, restored.picture))
            row = [bicubic, preview, result, truth]
            rows.append(row)
            found.append(tuple(psnr(to_tensor([shown]), to_tensor([truth])) for shown in row[:3]))
        means = np.mean(found, 0)
        seconds = (time.perf_counter() - begun) / len(busy)
        logger.info("%s: bicubic %.2f, preview %.2f, result %.2f dB; %.1f s a picture", name, *means.tolist(), seconds)
    write_sheet(out, rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tiles", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], help="options as name=value, values in JSON")
    options = parser.parse_args()
    prepare(options.threads)
    pipeline = SupirPipeline.from_pretrained(options.model)
    pipeline.set_progress_bar_config(disable=True)
    settings = {name: json.loads(value) for name, value in (item.split("=", 1) for item in options.set)}
    look(pipeline, options.tiles, options.out, options.pictures, settings)


if __name__ == "__main__":
    main()
