"""Negative-quality samples: what the negative words mean, shown (paper section 3.2 and A.2).

    supir train negatives --data PHOTOS --from MODEL --out negatives

The paper makes them by img2img at strength 0.5 from good pictures under the negative words, one for every two hundred
pictures. The prior at hand does the same here: the UNet without adaptor and connectors. ``degraded`` is the cheap
variant beside it, plain damage. Both write a folder of pictures that ``supir train --negatives`` takes, with
``labels.jsonl`` telling where each came from.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from supir.errors import OptionError
from supir.files import add_entries, read_entries, write_entries
from supir.image import Picture, write
from supir.models.text import TextTowers
from supir.options.fields import Options, choice, number, text
from supir.pipeline import SupirPipeline
from supir.prompts import NEGATIVE_PROMPT
from supir.restoration.denoiser_network import SIZE_IDS
from supir.sampling.denoiser import discrete_denoiser, text_guided
from supir.sampling.sigmas import Schedule, full_range_sigmas, initial_latent, training_sigmas
from supir.sampling.solvers import edm_euler
from supir.training.pairs import degraded_by, draw_degradation, psnr, to_pixels, to_tensor, write_sheet
from supir.training.photographs import LABELS, Crop, Photographs, open_photographs
from supir.training.recipes import shares
from supir.training.sharding import make_accelerator

logger = logging.getLogger(__name__)

NAME = "negatives"
"""Of the run."""
SHARE = 0.005
"""Of the photographs, where no number is given: the paper's 100 thousand of 20 million."""


@dataclass(frozen=True, kw_only=True)
class NegativeOptions(Options):
    """How negative pictures are made. A value outside its range raises ``OptionError``."""

    called = "an option of the run negatives"

    way: str = choice(
        "img2img",
        ("img2img", "degraded", "compared"),
        "img2img: as in the paper; degraded: plain damage; compared: a sheet of both instead",
    )
    pictures: int | None = number(None, 1, 10**8, "in all; unset: one for every 200 photographs")
    strength: float = number(0.5, 0.001, 1, "part of the training levels that a picture is noised up")
    num_steps: int = number(25, 1, 1000, "of the sampling")
    guidance: float = number(7.5, 0, 100, "toward the negative words, away from no words")
    size: int = number(512, 32, 4096, "side of the crops in pixels, a multiple of 32")
    degradation: str = text("default=1", "recipes and their shares, of the way degraded")
    batch: int = number(1, 1, 4096, "pictures painted at once")
    seed: int = number(0, 0, 2**31 - 1, "of everything drawn")

    def __post_init__(self) -> None:
        super().__post_init__()
        shares(self.degradation)
        if self.size % 32:
            raise OptionError(f"size is {self.size}; it must be a multiple of 32, four latent pixels")


def start_sigma(strength: float) -> float:
    """The noise level that img2img of a strength begins from: with 0.5 the level of timestep 499."""
    table = training_sigmas()
    return float(table[max(round(strength * len(table)) - 1, 0)])


@torch.no_grad()
def img2img(pipeline: SupirPipeline, pictures: Tensor, making: NegativeOptions, seeds: Sequence[int]) -> Tensor:
    """Good pictures (B, 3, H, W) in [-1, 1] repainted by the prior alone under the negative words, the same shape.

    ``seeds`` are of the noise, one a picture: a picture is the same in any company, to rounding.
    """
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
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.stack([torch.randn(latent.shape[1:], generator=each) for each in generators]).to(device)
    denoise = discrete_denoiser(network, unet.config.prediction_type, quantised=False)
    guided = text_guided(denoise, wanted, free, making.guidance)
    found = edm_euler(guided, initial_latent(noise, levels, latent), Schedule(levels))
    painted: Tensor = coder.decode((found / scaling).to(coder.dtype)).sample
    return painted.float().clamp(-1, 1).cpu()


def make_negatives(
    photographs: Photographs,
    out: Path,
    making: NegativeOptions,
    pipeline: SupirPipeline | None = None,
    accelerator: Accelerator | None = None,
) -> Iterator[dict[str, Any]]:
    """Write negative pictures of good ones, and yield the label of each, which tells how it was made.

    At the end there are ``making.pictures`` in the folder; those that are labelled there are kept. Where several
    processes call it, each makes a part, and the first writes and yields the labels of all. The way ``img2img`` needs
    the prior.
    """
    accelerator = accelerator or make_accelerator(cpu=True)
    labels, first = out / LABELS, accelerator.is_main_process
    number = making.pictures or max(1, round(SHARE * len(photographs)))
    known = {label["origin"]["index"]: label for label in read_entries(labels) if (out / label["file"]).exists()}
    accelerator.wait_for_everyone()
    if first and labels.exists():
        write_entries(labels, known.values())
    missing = [index for index in range(number) if index not in known]
    together = making.batch * accelerator.num_processes
    for start in range(0, len(missing), together):
        ours = missing[start : start + together][accelerator.process_index :: accelerator.num_processes]
        made = _made(photographs, out, ours, making, pipeline) if ours else []
        found = sorted(gather_object(made), key=lambda label: label["file"])
        if first:
            add_entries(labels, *found)
            yield from found


def _made(
    photographs: Photographs,
    out: Path,
    indices: Sequence[int],
    making: NegativeOptions,
    pipeline: SupirPipeline | None,
) -> list[dict[str, Any]]:
    """Make and write the negative pictures of these indices; their labels."""
    generators = [np.random.default_rng((making.seed, index)) for index in indices]
    crops = [photographs.draw(rng, making.size) for rng in generators]
    told: list[dict[str, Any]] = [{"way": making.way, "seed": making.seed, "index": index} for index in indices]
    if making.way == "img2img":
        assert pipeline is not None, "img2img needs the prior"
        seeds = [making.seed * 1_000_003 + index for index in indices]
        poor = img2img(pipeline, to_tensor([crop.pixels for crop in crops]), making, seeds)
        how = {"strength": making.strength, "guidance": making.guidance, "num_steps": making.num_steps}
        told = [origin | how for origin in told]
    else:
        drawn = [draw_degradation(rng, shares(making.degradation)) for rng in generators]
        poor = to_tensor([degraded_by(each, crop.pixels) for each, crop in zip(drawn, crops, strict=True)])
        told = [origin | {"degradation": each.to_json()} for origin, each in zip(told, drawn, strict=True)]
    return [_written(out, *each) for each in zip(poor, crops, told, strict=True)]


def _written(out: Path, poor: Tensor, crop: Crop, origin: dict[str, Any]) -> dict[str, Any]:
    name = f"{origin['index']:06d}.png"
    write(Picture(pixels=poor), out / name)
    return {"file": name, "caption": crop.caption, "negative": True, "origin": origin}


def compare(
    pipeline: SupirPipeline, photographs: Photographs, sheet: Path, making: NegativeOptions
) -> dict[str, float]:
    """Both ways from the same pictures: a sheet (good, img2img, degraded) and, for each, PSNR and remaining detail.

    ``detail`` is the mean absolute difference of neighbouring pixels over that of the good pictures: below 1 is
    over-smooth, above 1 noisy or too sharp.
    """
    number = making.pictures or 6
    generators = [np.random.default_rng((making.seed, index)) for index in range(number)]
    crops = [photographs.draw(rng, making.size) for rng in generators]
    good = to_tensor([crop.pixels for crop in crops])
    painted = torch.cat([img2img(pipeline, good[index : index + 1], making, [making.seed]) for index in range(number)])
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


def negatives_run(data: Sequence[Path], out: Path, model: Path | None, making: NegativeOptions) -> Path:
    """The whole run; returns the folder of negatives, or the sheet of ``compared``.

    Args:
        data: folders of good pictures, tiles or built data sets.
        model: folder whose prior paints; None is the bundled one.

    Raises:
        OptionError, WeightsError: pictures or model cannot be used.
    """
    photographs, accelerator, pipeline = open_photographs(data), make_accelerator(), None
    if making.way != "degraded":
        pipeline = SupirPipeline.from_pretrained(model, device=accelerator.device)
    if making.way == "compared":
        assert pipeline is not None
        out.mkdir(parents=True, exist_ok=True)
        values = compare(pipeline, photographs, out / "compared.png", making)
        logger.info(", ".join(f"{name} {value:.3f}" for name, value in values.items()))
        return out / "compared.png"
    for label in make_negatives(photographs, out, making, pipeline, accelerator):
        logger.info("%s", label["file"])
    return out
