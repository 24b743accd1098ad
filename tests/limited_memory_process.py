"""A process that restores a picture of noise with little memory left, and prints the tiles used and the warnings.

python tests/limited_memory_process.py MEGABYTES
"""

from __future__ import annotations

import json
import re
import resource
import sys
import warnings
from pathlib import Path

import torch

from supir.errors import OutOfMemoryError
from supir.image import Picture
from supir.pipeline import SupirPipeline

SIDE = 640


def main() -> None:
    torch.set_num_threads(1)
    pipeline = SupirPipeline.from_pretrained()
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    options = pipeline.options(scale=1.0, num_steps=1, text_guidance=2.0, tile=256, tile_batch=16)
    pipeline(Picture(pixels=noise[:, :64, :64]), options.replace(min_size=64))  # libraries are set up
    mapped = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]
    resource.setrlimit(resource.RLIMIT_AS, (mapped + int(sys.argv[1]) * 10**6, resource.RLIM_INFINITY))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            [restored] = pipeline(Picture(pixels=noise), options)
            used, shape = json.loads(restored.record["options"]), list(restored.picture.pixels.shape)
        except OutOfMemoryError as error:
            used, shape = {"error": str(error)}, []
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    told = [str(each.message) for each in caught if each.category.__name__ == "SmallerTilesWarning"]
    print(json.dumps({"used": used, "shape": shape, "warnings": told}))


if __name__ == "__main__":
    main()
