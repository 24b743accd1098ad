"""A process that prints, as JSON, by how many bytes its memory grew at most in a pass of the bundled model.

python tests/planner_process.py sampling|encoding|decoding TILE
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch

from supir.pipeline import SupirPipeline
from supir.restoration.schedules import noise_schedule

SIDE = 1024


def status(name: str) -> int:
    """A size of this process in bytes, as Linux has it."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def work(pipeline: SupirPipeline, what: str, side: int, tile: int) -> None:
    options = pipeline.options(tile=tile, vae_tile=tile, text_guidance=2.0, num_steps=1)
    restorer = pipeline._restorer(options)
    latent = torch.zeros(1, 32, side // 8, side // 8)
    if what == "encoding":
        restorer.encode_degraded(torch.zeros(1, 3, side, side))
    elif what == "decoding":
        restorer.decode(latent)
    else:
        schedule = noise_schedule(options)
        denoise = restorer.denoiser(latent, latent, pipeline.embed_words(options, 1), schedule)
        denoise(latent, schedule.sigmas[:1])


@torch.no_grad()
def main() -> None:
    what, tile = sys.argv[1], int(sys.argv[2])
    pipeline = SupirPipeline.from_pretrained()
    work(pipeline, what, 64, 64)  # weights are paged in, libraries set up
    before = status("VmRSS")
    work(pipeline, what, SIDE, tile)
    print(json.dumps(status("VmHWM") - before))


if __name__ == "__main__":
    main()
