"""What each way to hold and run the networks changes in real results: bundled model, real photographs.

    python bench/quality_of_paths.py --data FOLDER --pictures 4 --side 512 --steps 10

Every picture is restored by the plain way (float32) and by the others with the same options and seed. The table says
how far the results are from the plain ones (PSNR in dB, the largest difference of a value in steps of 8 bits, a learned
distance where its weights are installed), what becomes of NIQE, and processor seconds a picture over the plain way's.
Writes out/bench/quality_of_paths.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supir import SupirPipeline, find_pictures, read
from supir.evaluation.benchmark import machine
from supir.evaluation.metrics import open_measures
from supir.image import Picture
from supir.options import NetworkOptions
from supir.weights.runtime import check_compiler

PLAIN = NetworkOptions(dtype="float32")
WAYS = {
    "plain": PLAIN,
    "compile": NetworkOptions(dtype="float32", compile=True),
    "bfloat16": NetworkOptions(dtype="bfloat16"),
    "int8_float32": NetworkOptions(dtype="float32", quantize="int8"),
    "int8": NetworkOptions(dtype="bfloat16", quantize="int8"),
    "float8": NetworkOptions(dtype="bfloat16", quantize="float8"),
}
MEASURES = ("psnr", "efficientnet_lite0_distance", "niqe")


def restored(model: str | None, way: NetworkOptions, given: list[Tensor], options: dict[str, Any]) -> list[Any]:
    """(picture in [-1, 1], processor seconds) for each; the first is made twice, so that compiling is not timed."""
    pipeline = SupirPipeline.from_pretrained(model, **asdict(way))
    pipeline.set_progress_bar_config(disable=True)
    found = []
    for pixels in [given[0], *given] if way.compile else given:
        start = time.process_time()
        [result] = pipeline(Picture(pixels=pixels.clone()), **options)
        found.append((result.picture.pixels.clamp(-1, 1), time.process_time() - start))
    return found[-len(given) :]


def compared(found: list[Any], plain: list[Any]) -> dict[str, float]:
    """Means over the pictures."""
    ready, _ = open_measures(MEASURES)
    rows: list[dict[str, float]] = []
    for (picture, seconds), (expected, plain_seconds) in zip(found, plain, strict=True):
        row = {"time_ratio": seconds / plain_seconds, "largest": float((picture - expected).abs().max()) * 127.5}
        row["niqe"] = ready["niqe"](picture, None)
        row["niqe_change"] = row["niqe"] - ready["niqe"](expected, None)
        if not torch.equal(picture, expected):
            row |= {name: ready[name](picture, expected) for name in ready if name != "niqe"}
        rows.append(row)
    return {name: statistics.mean(row[name] for row in rows if name in row) for row in rows[:1] for name in row}


def table(found: dict[str, dict[str, float]]) -> str:
    """The rows in Markdown."""
    heads = {"psnr": "PSNR to plain, dB", "largest": "largest difference, of 255",
             "efficientnet_lite0_distance": "learned distance", "niqe_change": "NIQE change",
             "time_ratio": "time x plain"}  # fmt: skip
    lines = ["| way | " + " | ".join(heads.values()) + " |", "|---|" + "--:|" * len(heads)]
    for name, row in found.items():
        cells = [format(row.get(key, math.nan), ".4f" if "distance" in key else ".2f") for key in heads]
        lines.append(f"| {name} | {' | '.join(cells).replace('nan', '–')} |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of real photographs")
    parser.add_argument("--model", help="a model folder; unset: the bundled model")
    parser.add_argument("--pictures", type=int, help="take so many")
    parser.add_argument("--side", type=int, default=512, help="the middle of each, at most so many pixels a side")
    parser.add_argument("--steps", type=int, help="unset: the preset's")
    parser.add_argument("--start-sigma", help="a level, or off: pure noise; unset: the preset's")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    if "compile" in chosen.ways:
        check_compiler()
    given = []
    for path in find_pictures([chosen.data])[: chosen.pictures]:
        pixels = read(path).pixels[:3]
        top, left = (max(0, (side - chosen.side) // 2) for side in pixels.shape[1:])
        given.append(pixels[:, top : top + chosen.side, left : left + chosen.side].clone())
    options: dict[str, Any] = {"scale": 1.0, "min_size": chosen.side, "seed": 1}
    if chosen.steps is not None:
        options["num_steps"] = chosen.steps
    if chosen.start_sigma is not None:
        options["start_sigma"] = "off" if chosen.start_sigma == "off" else float(chosen.start_sigma)
    plain = restored(chosen.model, PLAIN, given, options)
    found = {}
    for name in chosen.ways:
        made = plain if name == "plain" else restored(chosen.model, WAYS[name], given, options)
        found[name] = compared(made, plain)
        print(name, found[name], flush=True)
    record = {"options": options, "pictures": len(given), "side": chosen.side, "ways": found, **machine()}
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "quality_of_paths.json").write_text(json.dumps(record, indent=1) + "\n")
    print("\n" + table(found))


if __name__ == "__main__":
    main()
