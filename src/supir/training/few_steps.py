"""The few steps that sampling really takes: first taught in latents, then judged in pixels.

    python -m supir.training.few_steps --tiles TILES --model MODEL --autoencoder PLAIN --teacher CRISP --out RUN
    python -m supir.training.few_steps --tiles TILES --model MODEL --autoencoder PLAIN --features WEIGHTS \
        --warm-start RUN --out RUN2

Not in the paper, whose prior has learned from so many pictures that fifty steps of it paint. A small prior trained on
the noise alone predicts the mean, which is smooth. So UNet and adaptor learn on from there as a generator: beginning
with the latent of a plain E_dr noised to ``START_SIGMA`` they take one, two or four steps as the sampler does, and the
answer of a step drawn by chance is held against what is wanted.

Taught, that is the latent which a restoring network gives that has learned against a discriminator (see
``adversarial``): a fixed answer, learned in a tenth of the steps. Judged, it is decoded and held against the truth in
pixels and features, and before a discriminator (arXiv 2311.17042 for diffusion, 2507.20590 for restoration).

Under the negative words they learn to leave a picture as poor as it is, so that guidance away from them sharpens (paper
section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from supir.models.thin_autoencoder import ThinAutoencoder
from supir.sampling.sigmas import full_range_sigmas, initial_latent
from supir.training.adversarial import DISCRIMINATOR_PACE, Discriminator, compared, opposed
from supir.training.by_hand import arguments, prepare, run
from supir.training.crops import Tiles, halved, psnr, to_tensor, write_sheet
from supir.training.degraded_encoder import heldout_pairs
from supir.training.diffusion import denoiser, sample
from supir.training.features import FeatureDistance
from supir.training.loop import Stage
from supir.training.pairs import degrade
from supir.training.sizes import build
from supir.training.words import NEGATIVE_PROMPT, Words, draw_prompt

START_SIGMA = 1.0
"""Noise that the preview's latent begins with: a quarter of the latents' own deviation."""
NUM_STEPS = (1, 2, 4)
"""Steps a batch may take."""
ADVERSARIAL_SHARE = 1.4
"""Of the discriminator when judged. E_dr has taken noise and texture alike out of the hint; with half of this share the
result was a little smoother still."""
LEARNING = ("unet", "adaptor")
NEGATIVE_SHARE = 0.15
"""Of samples under the negative words, whose target is the preview or the degraded picture itself."""


@dataclass(frozen=True)
class Samples:
    """Of one step: ``clean`` and ``degraded`` pictures (B, 3, S, S) in [-1, 1]; the first ``num_poor`` are negative."""

    clean: Tensor
    degraded: Tensor
    prompts: list[str]
    num_poor: int

    @staticmethod
    def draw(rng: np.random.Generator, train: Tiles, batch: int, crop: int, poor: bool = True) -> Samples:
        """Crops, degraded, under their prompts; at least one is not negative.

        Without ``poor`` ones the negative words say nothing: as often as before, they stand under good pictures.
        """
        crops = [train.crop(rng, crop) for _ in range(batch)]
        degraded = to_tensor([degrade(rng, picture) for picture, _ in crops])
        num_poor = min(int(rng.binomial(batch, NEGATIVE_SHARE)), batch - 1)
        good = [draw_prompt(rng, caption) for _, caption in crops[num_poor:]]
        clean = to_tensor([picture for picture, _ in crops])
        return Samples(clean, degraded, [NEGATIVE_PROMPT] * num_poor + good, num_poor if poor else 0)


class Restoring:
    """The networks as the sampler uses them: steps from a noised hint to an answer."""

    def __init__(self, models: dict[str, Any], autoencoder: ThinAutoencoder, words: Words) -> None:
        self.models, self.autoencoder, self.words = models, autoencoder, words
        for name in models.keys() - set(LEARNING):
            models[name].requires_grad_(False)
        self.scaling = float(autoencoder.config.scaling_factor)

    @torch.no_grad()
    def hint(self, lq: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) that E_dr makes of degraded pictures (B, 3, 8h, 8w) in [-1, 1]."""
        return self.autoencoder.encode_degraded(lq).latent_dist.mode() * self.scaling

    def picture(self, latent: Tensor) -> Tensor:
        """Pictures (B, 3, 8h, 8w) of scaled latents, in full precision whatever made these."""
        with torch.autocast(latent.device.type, enabled=False):
            decoded: Tensor = self.autoencoder.decode(latent.float() / self.scaling).sample
            return decoded

    def answer(self, hint: Tensor, prompts: list[str], noise: Tensor, num_steps: int, step: int) -> Tensor:
        """The denoised latent of one step, reached as the sampler would; only that step has a gradient."""
        sigmas = full_range_sigmas(num_steps, START_SIGMA)
        x = initial_latent(noise, sigmas, hint)
        denoise = denoiser(self.models, self.words, hint, prompts)
        with torch.no_grad():
            for index in range(step):
                denoised = denoise(x, sigmas[index].expand(len(x)))
                x = denoised + (x - denoised) * (sigmas[index + 1] / sigmas[index])
        latent: Tensor = denoise(x, sigmas[step].expand(len(x)))
        return latent

    def drawn_answer(self, rng: np.random.Generator, hint: Tensor, prompts: list[str]) -> Tensor:
        """The denoised latent of one step of a short sampling, both drawn by chance."""
        num_steps = int(rng.choice(NUM_STEPS))
        return self.answer(hint, prompts, torch.randn_like(hint), num_steps, int(rng.integers(num_steps)))

    @torch.no_grad()
    def sample(self, hint: Tensor, num_steps: int) -> Tensor:
        """Latents after all steps under the quality words."""
        return sample(self.models, self.words, hint, num_steps, START_SIGMA)


def taught_stage(tiles: Path, restoring: Restoring, teacher: ThinAutoencoder, batch: int, crop: int) -> Stage:
    """UNet and adaptor learn the latents that the teacher's E_dr gives; under the negative words, the hint."""
    train, (clean, degraded) = Tiles(tiles), heldout_pairs(tiles, 192)

    def taught(lq: Tensor) -> Tensor:
        latent: Tensor = teacher.encode_degraded(lq).latent_dist.mode() * restoring.scaling
        return latent

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        samples = Samples.draw(rng, train, batch, crop)
        hint = restoring.hint(samples.degraded)
        with torch.no_grad():
            wanted = taught(samples.degraded)
            wanted[: samples.num_poor] = hint[: samples.num_poor]
        found = restoring.drawn_answer(rng, hint, samples.prompts)
        left = (found - wanted).square().mean((1, 2, 3))[samples.num_poor :].mean().item()
        before = (hint - wanted).square().mean((1, 2, 3))[samples.num_poor :].mean().item()
        return (found - wanted).square().mean(), {"left": left, "before": before}

    def sheet(path: Path) -> dict[str, float]:
        hint = restoring.hint(degraded)
        shown = {"preview": hint, "result": restoring.sample(hint, max(NUM_STEPS)), "teacher": taught(degraded)}
        pictures = {name: restoring.picture(latent) for name, latent in shown.items()}
        write_sheet(path, halved([*pictures.values(), clean]))
        return {name: psnr(p, clean) for name, p in pictures.items()}

    return Stage("taught", {name: restoring.models[name] for name in LEARNING}, loss, sheet)


def judged_stage(tiles: Path, restoring: Restoring, features: Path, batch: int, crop: int, poor: bool = True) -> Stage:
    """UNet, adaptor and their opponent learn; words and autoencoder are fixed. ``poor`` as in ``Samples.draw``."""
    train, (clean, degraded) = Tiles(tiles), heldout_pairs(tiles, 192)
    distance, discriminator = FeatureDistance(features), Discriminator()

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        samples = Samples.draw(rng, train, batch, crop, poor)
        hint = restoring.hint(samples.degraded)
        wanted = _or_poor(samples, restoring.picture(hint[: samples.num_poor]))
        made = restoring.picture(restoring.drawn_answer(rng, hint, samples.prompts))
        # Rounded to bfloat16 a made picture could be told by its rounding.
        with torch.autocast(made.device.type, enabled=False):
            exempt = samples.num_poor
            return opposed(made, wanted, progress, distance, discriminator, share=ADVERSARIAL_SHARE, num_exempt=exempt)

    def sheet(path: Path) -> dict[str, float]:
        hint = restoring.hint(degraded)
        shown = {"degraded": degraded, "preview": restoring.picture(hint)}
        shown["result"] = restoring.picture(restoring.sample(hint, max(NUM_STEPS)))
        return compared(path, shown, clean, distance)

    learning = {name: restoring.models[name] for name in LEARNING} | {"discriminator": discriminator}
    return Stage("judged", learning, loss, sheet, pace={"discriminator": DISCRIMINATOR_PACE})


def _or_poor(samples: Samples, smooth: Tensor) -> Tensor:
    """The clean pictures, but of negative samples the over-smooth preview or, a quarter of them, the damage itself."""
    number = samples.num_poor
    poor = torch.where(torch.rand(number, 1, 1, 1) < 0.75, smooth.detach(), samples.degraded[:number])
    return torch.cat([poor, samples.clean[number:]])


def main() -> None:
    """Train on from a model folder or go on, and write the averaged UNet and adaptor to ``OUT/<component>``."""
    parser = arguments(main.__doc__, minutes=60)
    parser.add_argument("--model", type=Path, required=True, help="model folder whose UNet, adaptor and text begin")
    parser.add_argument("--warm-start", type=Path, help="folder of a run whose UNet and adaptor begin instead")
    parser.add_argument("--autoencoder", type=Path, required=True, help="with the E_dr that makes the hint")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--teacher", type=Path, help="autoencoder whose crisp E_dr is to be learned")
    way.add_argument("--features", type=Path, help="EfficientNet-lite0 weights: learn from the truth and an opponent")
    parser.add_argument("--no-negatives", action="store_true", help="to compare: judged without negative samples")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    options = parser.parse_args()
    prepare(options.threads)
    torch.manual_seed(0)
    autoencoder = ThinAutoencoder.from_pretrained(options.autoencoder).requires_grad_(False)
    kinds = build(autoencoder.config.latent_channels)
    begin = {n: (options.warm_start if n in LEARNING else None) or options.model for n in kinds}
    models = {n: type(m).from_pretrained(begin[n] / n, dtype=torch.float32) for n, m in kinds.items()}
    tokenizers = [CLIPTokenizer.from_pretrained(options.model / name) for name in ("tokenizer", "tokenizer_2")]
    restoring = Restoring(models, autoencoder, Words(tokenizers, [models["text_encoder"], models["text_encoder_2"]]))
    if options.teacher:
        teacher = ThinAutoencoder.from_pretrained(options.teacher).requires_grad_(False)
        stage = taught_stage(options.tiles, restoring, teacher, options.batch, options.crop)
    else:
        poor = not options.no_negatives
        stage = judged_stage(options.tiles, restoring, options.features, options.batch, options.crop, poor)
    run(stage, options, learning_rate=options.learning_rate)
    for name in LEARNING:
        models[name].save_pretrained(options.out / name)


if __name__ == "__main__":
    main()
