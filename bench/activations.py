"""How large a model's activations become, layer by layer, and what 16 bits make of its results.

    python bench/activations.py [--model FOLDER] [--data FOLDER] [--pictures 2] [--side 128] [--scales 1 2 4]

Good pictures are restored in float32, bfloat16 and float16 while every layer's largest output is noted: the table names
the layers that come nearest to 65 504, where float16 ends, and what they came to in each type. Below it the PSNR to the
float32 results, and whether a wider type was needed to answer at all. A model whose layers go beyond the end says so in
its folder: ``"dtypes": "float32, bfloat16"`` in model_index.json.
Writes out/bench/activations.json.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supir import SupirPipeline, find_pictures, read
from supir.evaluation.benchmark import machine
from supir.image import Picture
from supir.restoration.finite import WiderDtypeWarning
from supir.weights.device import DTYPES, best_device

END = torch.finfo(torch.float16).max
PARTS = ("text_encoder", "text_encoder_2", "autoencoder", "adaptor", "unet")
EXAMPLE = Path(__file__).parents[1] / "examples"


@contextmanager
def largest_outputs(pipeline: SupirPipeline, dtype: torch.dtype) -> Iterator[dict[str, float]]:
    """The largest magnitude that each layer without layers inside, and each connector, answered with in a type."""
    found: dict[str, float] = {}

    def note(name: str, output: Any) -> None:
        tensors = [output] if isinstance(output, Tensor) else [each for each in output if isinstance(each, Tensor)]
        for each in tensors:
            if each.dtype is dtype:
                value = float(each.abs().max())
                found[name] = max(found.get(name, 0.0), math.inf if math.isnan(value) else value)

    handles = []
    for part in PARTS:
        for name, layer in getattr(pipeline, part).named_modules():
            if not list(layer.children()) or (name.startswith("connectors.") and name.count(".") == 1):
                hook = layer.register_forward_hook(lambda _, __, out, name=f"{part}.{name}": note(name, out))
                handles.append(hook)
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def restored(pipeline: SupirPipeline, given: list[Tensor], scales: list[float], steps: int | None) -> list[Tensor]:
    """Every picture at every scale."""
    wanted = [(pixels, scale) for pixels in given for scale in scales]
    return [
        pipeline(Picture(pixels=pixels.clone()), scale=scale, num_steps=steps)[0].picture.pixels
        for pixels, scale in wanted
    ]


def opened(model: str | None, device: str, dtype: str) -> SupirPipeline:
    """A model on a device in some arithmetic."""
    pipeline = SupirPipeline.from_pretrained(model, device=device, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def difference(found: list[Tensor], exact: list[Tensor]) -> dict[str, float]:
    """Of results in 16 bits from those in 32: the smallest PSNR in dB of all pictures, and the largest difference."""
    errors = [(a - b).square().mean() for a, b in zip(found, exact, strict=True)]
    worst = float(torch.stack(errors).max())
    return {
        "psnr": 10 * math.log10(4 / worst) if worst else math.inf,
        "largest": max(float((a - b).abs().max()) for a, b in zip(found, exact, strict=True)),
    }


def middle(pixels: Tensor, side: int) -> Tensor:
    """The middle of a picture (3, H, W), at most ``side`` pixels wide and high."""
    top, left = (max(0, (size - side) // 2) for size in pixels.shape[1:])
    return pixels[:, top : top + side, left : left + side].contiguous()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model folder; unset: the bundled model")
    parser.add_argument("--data", default=str(EXAMPLE), help="good pictures; unset: the example")
    parser.add_argument("--device", default=None, help="unset: a GPU if torch sees one")
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--side", type=int, default=128, help="of the middle that is taken of each")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--top", type=int, default=12, help="layers to name")
    options = parser.parse_args()
    device = options.device or best_device()
    given = [middle(read(path).rgb, options.side) for path in find_pictures([options.data])[: options.pictures]]
    pipeline = opened(options.model, device, "float32")
    with largest_outputs(pipeline, torch.float32) as outputs:
        exact = restored(pipeline, given, options.scales, options.steps)
    ranked = sorted(outputs.items(), key=lambda item: -item[1])
    largest, ways = {"float32": dict(ranked)}, {}
    said: list[str] = []
    for dtype in ("bfloat16", "float16"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", WiderDtypeWarning)
            narrow = opened(options.model, device, dtype)
            with largest_outputs(narrow, DTYPES[dtype]) as largest[dtype]:
                found = restored(narrow, given, options.scales, options.steps)
        wider = any(issubclass(each.category, WiderDtypeWarning) for each in caught)
        ways[dtype] = difference(found, exact) | {"wider": str(narrow.unet.dtype) if wider else None}
        then = f", after it went on in {narrow.unet.dtype}" if wider else ""
        said.append(
            f"{dtype}: {ways[dtype]['psnr']:.1f} dB, largest difference {ways[dtype]['largest']:.3f} of 2{then}"
        )
    print(f"largest outputs of {len(outputs)} layers; float16 ends at {END:.0f}; nan: not calculated in it")
    print("".join(f"{dtype:>10}" for dtype in largest) + "  of the end  layer")
    of_parts = [next(item for item in ranked if item[0].startswith(f"{part}.")) for part in PARTS]
    for name, value in dict([*ranked[: options.top], *of_parts]).items():
        row = "".join(f"{outputs.get(name, math.nan):10.0f}" for outputs in largest.values())
        print(f"{row}  {'beyond' if value > END else f'{value / END:6.1%}':>10}  {name}")
    print(*said, sep="\n")
    out = Path("out/bench/activations.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    figures = {"machine": machine(), "options": vars(options), "layers": largest, "results": ways}
    out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
