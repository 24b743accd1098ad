"""A process that restores a picture of noise, may map little more once sampling begins, and prints what tiles it used.

python tests/limited_memory_process.py MEGABYTES
"""

from __future__ import annotations

import ctypes
import json
import re
import resource
import sys
import warnings
from pathlib import Path

import torch

from supir.pipeline import SupirPipeline
from supir.restoration.restorer import Conditions
from supir.sampling.noise import SampleNoise

SIDE = 640


@torch.no_grad()
def main() -> None:
    pipeline = SupirPipeline.from_pretrained()
    options = pipeline.options(num_steps=1, text_guidance=2.0, tile=256, tile_batch=16)
    noise = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    words = pipeline.embed_words(options, 1)
    pipeline._restorer(options).restore(noise[..., :64, :64], lambda: words, SampleNoise([0]))  # libraries are set up

    def limited() -> Conditions:
        ctypes.CDLL(None).malloc_trim(0)
        mapped = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]
        resource.setrlimit(resource.RLIMIT_AS, (1024 * mapped + int(sys.argv[1]) * 10**6, resource.RLIM_INFINITY))
        return words

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = pipeline._restorer(options).restore(noise, limited, SampleNoise([0]))
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    used = {name: getattr(found.options, name) for name in ("tile", "tile_batch", "vae_tile")}
    told = [str(each.message) for each in caught if each.category.__name__ == "SmallerTilesWarning"]
    print(json.dumps({"used": used, "shape": list(found.pixels.shape), "warnings": told}))


if __name__ == "__main__":
    main()
