"""A whole picture by a full-size model of random weights: does it complete, in which memory, and where the time goes.

    python bench/full_size_picture.py out/picture-bench                        # 10 GB of disk, some minutes
    python bench/full_size_picture.py out/picture-bench --dtype float32 --quantize int8
    python bench/full_size_picture.py out/tiny --tiny --side 128               # to try it

Writes a model folder of SDXL's size (float16, safetensors) into the folder, loads it with ``from_pretrained`` as users
do, restores a picture of 1024x1024 pixels in two steps, without text guidance and with it, prints the seconds of every
stage and the peak memory of the process, and removes the folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import resource
import shutil
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

FULL_TEXT = {
    "text_encoder": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "text_encoder_2": {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
        "projection_dim": 1280, "hidden_act": "gelu",
    },
}  # fmt: skip
TINY_TEXT = {
    name: {"hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, **more}
    for name, width, more in (("text_encoder", 24, {}), ("text_encoder_2", 40, {"projection_dim": 16}))
}


def write_model(folder: Path, tiny: bool) -> None:
    """The folder, each weight drawn from one block of normal numbers; never more than one tensor in memory."""
    import full_size_call as call
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from supir.models.autoencoder import SupirAutoencoder
    from supir.weights.model_folder import BUNDLED_MODEL

    unet, adaptor = call.make_networks(call.TINY if tiny else {})
    with torch.device("meta"):
        widths = {"block_out_channels": (32, 32, 32, 32)} if tiny else {}
        parts: dict[str, Any] = {"unet": unet, "adaptor": adaptor, "autoencoder": SupirAutoencoder(**widths)}
        for name, kind in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
            config = CLIPTextConfig(**(TINY_TEXT if tiny else FULL_TEXT)[name])
            config.architectures, config.dtype = [kind.__name__], torch.float16
            parts[name] = kind(config)
    index: dict[str, Any] = {"_class_name": "SupirPipeline", "_diffusers_version": "0.42.1"}
    for name, part in parts.items():
        (folder / name).mkdir(parents=True)
        ours = hasattr(part, "save_config")
        part.save_config(folder / name) if ours else part.config.save_pretrained(folder / name)
        write_weights(part, folder / name / ("diffusion_pytorch_model.safetensors" if ours else "model.safetensors"))
        index[name] = [type(part).__module__ if ours else "transformers", type(part).__name__]
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(BUNDLED_MODEL / name, folder / name)
        index[name] = ["transformers", "CLIPTokenizer"]
    (folder / "model_index.json").write_text(json.dumps(index))


def write_weights(network: nn.Module, path: Path) -> None:
    """A safetensors file in float16: matrices scaled by their fan-in, norms near one, biases near zero."""
    block = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    weights = dict(network.named_parameters())
    for name, weight in weights.items():
        end = offset + 2 * weight.numel()
        header[name] = {"dtype": "F16", "shape": list(weight.shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, weight in weights.items():
            if weight.ndim > 1:
                values = block * weight[0].numel() ** -0.5
            else:
                values = 0.02 * block + (1.0 if name.endswith("weight") else 0.0)
            data, left = values.astype(np.float16).tobytes(), 2 * weight.numel()
            while left > 0:
                left -= file.write(data[: min(left, len(data))])


class Stages:
    """Wall and processor seconds of named stages, and the peak memory after each."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._last = time.perf_counter(), time.process_time()

    def end(self, name: str) -> None:
        """A stage is over; the next one begins."""
        now = time.perf_counter(), time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        wall, processor = (round(after - before, 1) for after, before in zip(now, self._last, strict=True))
        self.found.append({"stage": name, "wall_s": wall, "processor_s": processor, "peak_gb": round(peak, 2)})
        print(f"  {name:32} {wall:8.1f} s, processor {processor:8.1f} s, peak RSS {peak:.2f} GB", flush=True)
        self._last = now

    def told(self, owner: Any, method: str, name: Callable[[dict[str, Any]], str]) -> None:
        """Every call of a method is a stage; ``name`` is given its keywords."""
        plain: Callable[..., Any] = getattr(owner, method)

        @wraps(plain)
        def timed(*arguments: Any, **named: Any) -> Any:
            result = plain(*arguments, **named)
            self.end(name(named))
            return result

        setattr(owner, method, timed)


def restore(folder: Path, networks: dict[str, Any], side: int, memory: float, runs: dict[str, dict[str, Any]]) -> None:
    """Load and restore, in this process; prints as it goes and writes FOLDER.json."""
    from supir import SupirPipeline
    from supir.image import Picture
    from supir.restoration.restorer import Restorer

    stages = Stages()
    pipeline = SupirPipeline.from_pretrained(folder, **networks)
    pipeline.set_progress_bar_config(disable=True)
    stages.end("load")
    decodings = itertools.cycle(("decode the preview", "decode the result"))
    stages.told(SupirPipeline, "_planned", lambda named: "plan")
    stages.told(Restorer, "encode", lambda named: "encode" if named["degraded"] else "anchor")
    stages.told(Restorer, "decode", lambda named: next(decodings))
    stages.told(SupirPipeline, "embed_words", lambda named: "text")
    coarse = torch.rand(1, 3, 33, 33, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    pixels = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=True)[0]
    for name, given in runs.items():
        print(f"{name}:", flush=True)
        options = pipeline.options(scale=1.0, min_size=side, memory=memory, **given)
        [found] = pipeline(Picture(pixels=pixels.clone()), options, on_step=lambda step: stages.end("step"))
        stages.end("colours")
        assert torch.isfinite(found.picture.pixels).all()
        used = json.loads(found.record["options"])
        print(f"  tiles: {used['tile']} px, {used['vae_tile']} px in the autoencoder", flush=True)
    record = {"networks": found.record.get("networks", "float16 or float32, whole"), "stages": stages.found}
    folder.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    """Write, load and restore, remove."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder on a disk with 10 GB to spare")
    parser.add_argument("--dtype", help="default bfloat16, and float32 where the processor does not multiply it")
    parser.add_argument("--quantize", default="int8")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--memory", type=float, default=11.0, help="GB that the plan may use (default 11)")
    parser.add_argument("--unguided-only", action="store_true", help="leave out the guided run")
    parser.add_argument("--tiny", action="store_true", help="tiny networks: tries the program, measures nothing of use")
    parser.add_argument("--keep", action="store_true", help="do not remove the folder; one that is there is used")
    chosen = parser.parse_args()
    from full_size_call import multiplies_bfloat16

    dtype = chosen.dtype or ("bfloat16" if multiplies_bfloat16() else "float32")
    networks = {"dtype": dtype, "quantize": chosen.quantize, "compile": chosen.compile}
    unguided = {"num_steps": chosen.steps, "text_guidance": 1.0, "text_guidance_start": "off"}
    runs = {f"{chosen.steps} steps without text guidance": unguided}
    if not chosen.unguided_only:
        runs[f"{chosen.steps} steps with text guidance"] = unguided | {"text_guidance": 4.0}
    if chosen.folder.exists() and not chosen.keep:
        sys.exit(f"{chosen.folder} exists; give a new folder, or --keep to use it")
    fresh = multiprocessing.get_context("spawn")
    work = [(restore, (chosen.folder, networks, chosen.side, chosen.memory, runs))]
    if not chosen.folder.exists():
        work.insert(0, (write_model, (chosen.folder, chosen.tiny)))
    try:
        for step, given in work:
            process = fresh.Process(target=step, args=given)
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{step.__name__} failed with {process.exitcode}")
    finally:
        if not chosen.keep and chosen.folder.exists():
            shutil.rmtree(chosen.folder)


if __name__ == "__main__":
    main()
