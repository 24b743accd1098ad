"""Peak memory of converting and loading full-size files of random weights, each step in a process of its own.

    python bench/convert_memory.py FOLDER

writes an SDXL single file (float16, 6.9 GB) and a SUPIR file (float32, 5.3 GB) of the published names and shapes into
FOLDER, converts them, loads the result, loads the two files directly, writes the SUPIR file once more as a .ckpt,
converts from that, and removes it all. About 28 GB of disk.

Two figures a step: `peak RSS` is what the kernel counts as resident (getrusage), pages of memory-mapped files included,
which it takes back when memory is short; `peak anonymous` is what the process itself holds (RssAnon, every 10 ms).
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = Path(__file__).parents[1] / "tests" / "parity" / "fixtures" / "fullsize_shapes.json.gz"
SUPIR_PARTS = ("model.control_model.", "model.diffusion_model.project_modules.", "first_stage_model.denoise_encoder.")
DTYPES: dict[str, tuple[str, type[Any]]] = {"float16": ("F16", np.float16), "float32": ("F32", np.float32)}
BLOCK_VALUES = 1 << 22


def read_shapes(path: Path) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Names and shapes of the SDXL file and of the SUPIR file."""
    recorded = json.loads(gzip.decompress(path.read_bytes()))
    shapes = {key: shape for part in ("ran", "derived") for key, (shape, _) in recorded[part].items()}
    del shapes["denoiser.sigmas"]
    supir = {key: shape for key, shape in shapes.items() if key.startswith(SUPIR_PARTS)}
    return {key: shape for key, shape in shapes.items() if key not in supir}, supir


def write_random(path: Path, shapes: dict[str, list[int]], dtype: str) -> None:
    """A safetensors file of random values, written block by block (one block of normals, again and again)."""
    name, kind = DTYPES[dtype]
    header: dict[str, Any] = {}
    offset = 0
    for key, shape in shapes.items():
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
        header[key] = {"dtype": name, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    block = (np.random.default_rng(0).standard_normal(BLOCK_VALUES) * 0.02).astype(kind).tobytes()
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        while offset > 0:
            offset -= file.write(block[: min(offset, len(block))])


def convert_files(folder: Path, supir: str = "supir.safetensors") -> None:
    """`supir convert`."""
    from supir.weights.convert import convert

    report = convert(folder / "sdxl.safetensors", folder / supir, folder / "model", dtype="float16")
    assert report.keys.ok


def load_folder(folder: Path) -> None:
    """Every component of the converted folder, by diffusers and transformers, as `SupirPipeline` loads them."""
    import torch
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from supir.models.adaptor import SupirAdaptor
    from supir.models.autoencoder import SupirAutoencoder
    from supir.models.unet import SupirUNet

    model, half = folder / "model", torch.float16
    components = [
        SupirUNet.from_pretrained(model / "unet", dtype=half),
        SupirAdaptor.from_pretrained(model / "adaptor", dtype=half),
        SupirAutoencoder.from_pretrained(model / "autoencoder", dtype=torch.float32),
        CLIPTextModel.from_pretrained(model / "text_encoder", dtype=half),
        CLIPTextModelWithProjection.from_pretrained(model / "text_encoder_2", dtype=half),
    ]
    report_size(components)


def load_files(folder: Path) -> None:
    """The two files, directly."""
    import torch

    from supir.weights.gather import gather
    from supir.weights.runtime import load_gathered

    dtypes = {"default": torch.float16, "autoencoder": torch.float32}
    given = gather(folder / "sdxl.safetensors", folder / "supir.safetensors")
    components, report = load_gathered(given, dtype=dtypes)
    assert report.ok
    report_size(list(components.values()))


def write_checkpoint(folder: Path) -> None:
    """The SUPIR file once more as a .ckpt, as it is published; this holds all of it."""
    import torch
    from safetensors.torch import load_file

    torch.save({"state_dict": load_file(folder / "supir.safetensors")}, folder / "supir.ckpt")
    (folder / "supir.safetensors").unlink()
    shutil.rmtree(folder / "model")


def convert_checkpoint(folder: Path) -> None:
    """`supir convert` from that .ckpt."""
    convert_files(folder, "supir.ckpt")


def report_size(models: list[Any]) -> None:
    """Read every value once, so that nothing is left on the disk, and say how large the weights are."""
    parameters = [parameter for model in models for parameter in model.parameters()]
    assert all(bool(parameter.detach().aminmax()[0] <= 1) for parameter in parameters)
    print(f"  weights in the models: {sum(parameter.nbytes for parameter in parameters) / 1e9:.2f} GB")


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))


def measured(step: Callable[[Path], None], folder: Path) -> None:
    """Run `step` in this process and print its time and its two peaks."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        step(folder)
    finally:
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"  {seconds:.1f} s, peak RSS {resident / 1e9:.2f} GB, peak anonymous {peak[0] / 1e9:.2f} GB", flush=True)


def sizes(folder: Path) -> Iterator[str]:
    """The size of each file or folder in `folder`."""
    for path in sorted(folder.iterdir()):
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        yield f"{path.name} {sum(file.stat().st_size for file in files) / 1e9:.2f} GB"


def main() -> None:
    """Write, convert, load, remove."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an empty or new folder on a disk with 28 GB to spare")
    parser.add_argument("--shapes", type=Path, default=SHAPES, help="names and shapes of the full-size model")
    parser.add_argument("--sdxl-dtype", choices=DTYPES, default="float16")
    parser.add_argument("--supir-dtype", choices=DTYPES, default="float32")
    parser.add_argument("--keep", action="store_true", help="do not remove the files afterwards")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        sys.exit(f"{folder} is not empty; give an empty or new folder")
    try:
        sdxl, supir = read_shapes(arguments.shapes)
        write_random(folder / "sdxl.safetensors", sdxl, arguments.sdxl_dtype)
        write_random(folder / "supir.safetensors", supir, arguments.supir_dtype)
        fresh = multiprocessing.get_context("spawn")
        for step in (convert_files, load_folder, load_files, write_checkpoint, convert_checkpoint):
            print(f"{step.__name__}: {(step.__doc__ or '').strip()}", flush=True)
            process = fresh.Process(target=measured, args=(step, folder))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(process.exitcode)
        print("; ".join(sizes(folder)))
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
