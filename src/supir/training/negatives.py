"""Negative-quality samples: what the negative words mean, shown (paper section 3.2 and A.2).

    python -m supir.training.negatives --model MODEL --data FOLDER --out FOLDER --number 100 [--way degraded]

The paper makes them by img2img at strength 0.5 from good pictures under the negative words. The prior at hand does the
same here: the UNet without adaptor and connectors. ``degraded`` is the cheap variant beside it, plain damage. Both
write a folder of pictures that ``supir train --negatives`` takes, with ``labels.jsonl`` telling where each came from.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from supir.files import add_entries, whole_lines
from supir.image import Picture, write
from supir.models.text import TextTowers
from supir.pipeline import SupirPipeline
from supir.prompts import NEGATIVE_PROMPT
from supir.restoration.denoiser_network import SIZE_IDS
from supir.sampling.denoiser import discrete_denoiser, text_guided
from supir.sampling.sigmas import Schedule, full_range_sigmas, initial_latent, training_sigmas
from supir.sampling.solvers import edm_euler
from supir.training.pairs import degraded_by, draw_degradation, psnr, to_pixels, to_tensor, write_sheet
from supir.training.photographs import LABELS, Photographs, open_photographs
from supir.training.recipes import shares
from supir.weights.device import best_device

logger = logging.getLogger(__name__)

Way = Literal["img2img", "degraded"]


@dataclass(frozen=True, kw_only=True)
class Making:
    """How negative pictures are made."""

    way: Way = "img2img"
    strength: float = 0.5
    """Part of the training levels that the picture is noised up: 0.5 is level 500 of 1000."""
    num_steps: int = 25
    guidance: float = 7.5
    """Toward the negative words, away from no words."""
    size: int = 512
    """Side of the crops in pixels."""
    degradation: str = "default=1"
    """Recipes and shares of the way ``degraded``."""
    seed: int = 0


def start_sigma(strength: float) -> float:
    """The noise level that img2img of a strength begins from: with 0.5 the level of timestep 499."""
    table = training_sigmas()
    return float(table[max(round(strength * len(table)) - 1, 0)])


@torch.no_grad()
def img2img(pipeline: SupirPipeline, pictures: Tensor, making: Making) -> Tensor:
    """Good pictures (B, 3, H, W) in [-1, 1] repainted by the prior alone under the negative words, the same shape."""
    coder, unet = pipeline.autoencoder, pipeline.unet
    scaling, device = float(coder.config.scaling_factor), unet.device
    towers = TextTowers(
        tokenizer=pipeline.tokenizer,
        tokenizer_2=pipeline.tokenizer_2,
        text_encoder=pipeline.text_encoder,
        text_encoder_2=pipeline.text_encoder_2,
    )
    number = len(pictures)
    words = towers.encode([*[NEGATIVE_PROMPT] * number, *[""] * number])
    sizes = torch.tensor([SIZE_IDS] * number, device=device)
    wanted, free = (
        {"tokens": words.tokens[half].to(unet.dtype), "text_embeds": words.pooled[half], "time_ids": sizes}
        for half in (slice(number), slice(number, None))
    )

    def network(x: Tensor, timestep: Tensor, _: Tensor, condition: dict[str, Tensor]) -> Tensor:
        known = {name: condition[name] for name in ("text_embeds", "time_ids")}
        noise: Tensor = unet(x.to(unet.dtype), timestep, condition["tokens"], added_cond_kwargs=known).sample
        return noise.float()

    latent = coder.encode(pictures.to(device, coder.dtype)).latent_dist.mode().float() * scaling
    levels = full_range_sigmas(making.num_steps, start_sigma(making.strength))
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(making.seed)).to(device)
    denoise = discrete_denoiser(network, unet.config.prediction_type, quantised=False)
    guided = text_guided(denoise, wanted, free, making.guidance)
    found = edm_euler(guided, initial_latent(noise, levels, latent), Schedule(levels))
    painted: Tensor = coder.decode((found / scaling).to(coder.dtype)).sample
    return painted.float().clamp(-1, 1).cpu()


def make_negatives(
    photographs: Photographs, out: Path, number: int, making: Making, pipeline: SupirPipeline | None = None
) -> Iterator[dict[str, object]]:
    """Write negative pictures of good ones, and yield the label of each, which tells how it was made.

    At the end there are ``number`` in the folder; those that exist are kept. The way ``img2img`` needs the prior.
    """
    labels = out / LABELS
    done = len(whole_lines(labels))
    for index in range(done, number):
        rng = np.random.default_rng((making.seed, index))
        crop = photographs.draw(rng, making.size)
        origin: dict[str, object] = {"way": making.way, "seed": making.seed, "index": index}
        if making.way == "img2img":
            if pipeline is None:
                raise ValueError("img2img needs a pipeline")
            single = Making(**(vars(making) | {"seed": making.seed * 1_000_003 + index}))
            poor = img2img(pipeline, to_tensor([crop.pixels]), single)[0]
            origin |= {"strength": making.strength, "guidance": making.guidance, "num_steps": making.num_steps}
        else:
            degradation = draw_degradation(rng, shares(making.degradation))
            poor = to_tensor([degraded_by(degradation, crop.pixels)])[0]
            origin["degradation"] = degradation.to_json()
        name = f"{index:06d}.png"
        write(Picture(pixels=poor), out / name)
        label = {"file": name, "caption": crop.caption, "negative": True, "origin": origin}
        add_entries(labels, label)
        yield label


def compare(
    pipeline: SupirPipeline, photographs: Photographs, sheet: Path, number: int, making: Making
) -> dict[str, float]:
    """Both ways from the same pictures: a sheet (good, img2img, degraded) and, for each, PSNR and remaining detail.

    ``detail`` is the mean absolute difference of neighbouring pixels over that of the good pictures: below 1 is
    over-smooth, above 1 noisy or too sharp.
    """
    generators = [np.random.default_rng((making.seed, index)) for index in range(number)]
    crops = [photographs.draw(rng, making.size) for rng in generators]
    good = to_tensor([crop.pixels for crop in crops])
    painted = torch.cat([img2img(pipeline, good[index : index + 1], making) for index in range(number)])
    mixture = shares(making.degradation)
    damaged = to_tensor(
        [degraded_by(draw_degradation(rng, mixture), crop.pixels) for rng, crop in zip(generators, crops, strict=True)]
    )
    write_sheet(sheet, [to_pixels(batch) for batch in (good, painted, damaged)])
    values: dict[str, float] = {}
    for name, batch in (("img2img", painted), ("degraded", damaged)):
        values |= {f"{name}_psnr": psnr(batch, good), f"{name}_detail": _detail(batch) / _detail(good)}
    return values


def _detail(pictures: Tensor) -> float:
    return float(pictures.diff(dim=-1).abs().mean() + pictures.diff(dim=-2).abs().mean())


def main() -> None:
    """Write negative pictures, or with ``--compare`` a sheet of both ways."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of good pictures, tiles or shards")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="model folder whose prior paints; unset: the bundled one")
    parser.add_argument("--device", help="cpu, cuda ...; unset: a GPU if torch sees one")
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--way", choices=("img2img", "degraded"), default="img2img")
    parser.add_argument("--compare", action="store_true", help="a sheet of both ways in OUT/compared.png instead")
    for name, kind in (("strength", float), ("num_steps", int), ("guidance", float), ("size", int), ("seed", int)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=getattr(Making(), name))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    names = ("way", "strength", "num_steps", "guidance", "size", "seed")
    making = Making(**{name: getattr(options, name) for name in names})
    pipeline = SupirPipeline.from_pretrained(options.model, device=options.device or best_device())
    photographs = open_photographs(options.data)
    if options.compare:
        options.out.mkdir(parents=True, exist_ok=True)
        values = compare(pipeline, photographs, options.out / "compared.png", options.number, making)
        logger.info(", ".join(f"{name} {value:.3f}" for name, value in values.items()))
        return
    for label in make_negatives(photographs, options.out, options.number, making, pipeline):
        logger.info("%s", label["file"])


if __name__ == "__main__":
    main()
