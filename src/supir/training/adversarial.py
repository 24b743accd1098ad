"""Stage 4: UNet, adaptor, connectors, text towers and decoder, against a discriminator, in one step from the hint.

    python -m supir.training.adversarial --tiles TILES --autoencoder RUN2/autoencoder --diffusion RUN3 \
        --tokenizers FOLDER --features WEIGHTS --out RUN4

Not in the paper, whose prior has seen a hundred million pictures: a small one, trained on noise alone, paints the mean
of what it cannot know, and the mean is blurred. Here the denoiser's estimate from the noised hint is decoded and judged
as a picture. The discriminator looks at the pixels and at features of an ImageNet network (as projected GANs do:
arXiv 2111.01007), which needs few samples. Samples of poor quality under the negative words stay, so that guidance
leads away from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from transformers import CLIPTokenizer

from supir.degradation.second_order import RECIPES, apply, draw
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.prompts import POSITIVE_PROMPT
from supir.sampling.sigmas import training_sigmas
from supir.training.crops import Pixels, Tiles, psnr, to_pixels, to_tensor, write_sheet
from supir.training.degraded_encoder import heldout_pairs
from supir.training.diffusion import SIZE_IDS, build
from supir.training.features import FeatureDistance
from supir.training.loop import Budget, Stage, Trainer, arguments, prepare
from supir.training.words import NEGATIVE_PROMPT, NEGATIVE_SHARE, Words, draw_prompt

SHARES = {"everyday": 0.6, "light": 0.15, "default": 0.25}
"""Of the recipes: more of the heavy one than E_dr learns from, since here detail is invented."""
SIGMAS = (0.1, 1.5)
"""Noise levels that are trained, drawn evenly in their logarithm; more than 1 hides what the hint knows."""
FEATURE_WEIGHT = 0.3
ADVERSARIAL_SHARE = 0.6
"""Of the discriminator's gradient at the pixels, beside the other losses' taken as 1."""


class Discriminator(nn.Module):
    """Scores of small neighbourhoods: one map for the pixels and one for each level of features."""

    def __init__(self, channels: tuple[int, ...] = (16, 24, 40), width: int = 64) -> None:
        super().__init__()

        def conv(before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            return spectral_norm(nn.Conv2d(before, after, kernel, stride, kernel // 2))

        def head(before: int, stride: int = 1) -> nn.Module:
            return nn.Sequential(
                conv(before, width),
                nn.LeakyReLU(0.2),
                conv(width, width, stride=stride),
                nn.LeakyReLU(0.2),
                conv(width, 1, 1),
            )

        self.heads = nn.ModuleList([head(12, stride=2), *(head(number) for number in channels)])

    def forward(self, pictures: Tensor, features: list[Tensor]) -> list[Tensor]:
        """Scores (B, 1, h, w) of pictures (B, 3, H, W) in [-1, 1] and their features; higher is more real."""
        seen = [F.pixel_unshuffle(pictures, 2), *features]
        return [head(x) for head, x in zip(self.heads, seen, strict=True)]


def hinge(scores: list[Tensor], real: bool) -> Tensor:
    """The discriminator's loss on real or made pictures."""
    return torch.stack([F.relu(1 - score if real else 1 + score).mean() for score in scores]).mean()


def degrade(rng: np.random.Generator, clean: Pixels) -> Pixels:
    """A degraded uint8 picture of the same size, from this stage's mixture of recipes."""
    recipe = RECIPES[str(rng.choice(list(SHARES), p=list(SHARES.values())))]
    return np.round(apply(draw(rng, recipe), (clean / 255).astype(np.float32)) * 255).astype(np.uint8)


class Restorations:
    """The denoiser's estimates from a noised hint, as latents."""

    def __init__(self, models: dict[str, Any], words: Words) -> None:
        self.models, self.words, self.sigmas = models, words, training_sigmas()

    def __call__(self, base: Tensor, hint: Tensor, sigma: Tensor, noise: Tensor, prompts: list[str]) -> Tensor:
        """Estimate (B, C, h, w) of the clean latent from ``base + sigma * noise``; ``sigma`` is (B,)."""
        timestep = torch.searchsorted(self.sigmas, sigma).clamp(max=len(self.sigmas) - 1)
        level = self.sigmas[timestep][:, None, None, None]
        noisy = base + level * noise
        seen = noisy * (level.square() + 1).rsqrt()
        tokens, pooled = self.words(prompts)
        known = {"text_embeds": pooled, "time_ids": torch.tensor([SIZE_IDS] * len(hint))}
        control = self.models["adaptor"](seen, timestep, tokens, known, hint)
        found: Tensor = self.models["unet"](seen, timestep, tokens, added_cond_kwargs=known, control=control).sample
        return noisy - level * found


def adversarial_stage(
    tiles: Path, autoencoder: ThinAutoencoder, models: dict[str, Any], words: Words, features: Path, batch: int, crop: int
) -> Stage:
    """The stage; encoder and E_dr are fixed, the decoder learns."""
    train, (clean, degraded) = Tiles(tiles), heldout_pairs(tiles, 192)
    distance, discriminator = FeatureDistance(features), Discriminator()
    scaling, estimate = autoencoder.config.scaling_factor, Restorations(models, words)

    def encode(x: Tensor) -> Tensor:
        found: Tensor = autoencoder.encode(x).latent_dist.mode() * scaling
        return found

    def targets(rng: np.random.Generator) -> tuple[Tensor, Tensor, list[str], Tensor]:
        """Wanted pictures, hints, prompts, and which samples are of good quality."""
        crops = [train.crop(rng, crop) for _ in range(batch)]
        x = to_tensor([picture for picture, _ in crops])
        lq = to_tensor([degrade(rng, picture) for picture, _ in crops])
        prompts = [draw_prompt(rng, caption) for _, caption in crops]
        poor = rng.random(batch) < NEGATIVE_SHARE
        poor[0] = False
        with torch.no_grad():
            restored = autoencoder.restorer(lq)
            for index in np.flatnonzero(poor):
                x[index] = (lq if rng.random() < 0.5 else restored)[index]
                prompts[index] = NEGATIVE_PROMPT
            return x, encode(restored), prompts, torch.from_numpy(~poor)

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        x, hint, prompts, good = targets(rng)
        with torch.no_grad():
            # Later steps of a sampler begin from what earlier ones found: somewhere between hint and truth.
            share = torch.rand(batch) * (torch.rand(batch) < 0.4)
            base = torch.lerp(hint, encode(x), share[:, None, None, None])
            low, high = np.log(SIGMAS)
            sigma = torch.exp(low + (high - low) * torch.rand(batch))
        y = autoencoder.decode(estimate(base, hint, sigma, torch.randn_like(hint), prompts) / scaling).sample
        # Each loss is led back to the pixels only; what they ask for there goes through the networks once.
        pixels = y.detach().requires_grad_()
        pixel = (pixels - x).abs().mean()
        seen = distance.features(pixels)
        with torch.no_grad():
            wanted = distance.features(x)
        apart = torch.stack([(a - b).abs().mean() for a, b in zip(seen, wanted, strict=True)]).mean()
        made = discriminator(pixels[good], [level[good] for level in seen])
        fooled = -torch.stack([score.mean() for score in made]).mean()
        [asked] = torch.autograd.grad(pixel + FEATURE_WEIGHT * apart, pixels, retain_graph=True)
        [lured] = torch.autograd.grad(fooled, pixels)
        strength = ADVERSARIAL_SHARE * min(1.0, progress / 0.05) * asked.norm() / (lured.norm() + 1e-12)
        generator = (y * (asked + strength * lured)).sum()
        judged = discriminator(y.detach()[good], [level.detach()[good] for level in seen])
        real = discriminator(x[good], [level[good] for level in wanted])
        opponent = 0.5 * (hinge(real, True) + hinge(judged, False))
        values = {"pixel": pixel.item(), "features": apart.item(), "opponent": opponent.item()}
        return generator + 0.1 * opponent, values | {"fooled": fooled.item(), "strength": float(strength)}

    def sheet(path: Path) -> dict[str, float]:
        hint = encode(autoencoder.restorer(degraded))
        noise = torch.randn(hint.shape, generator=torch.Generator().manual_seed(0))
        found = estimate(hint, hint, torch.full((len(hint),), 0.5), noise, [POSITIVE_PROMPT] * len(hint))
        result, preview = (autoencoder.decode(z / scaling).sample for z in (found, hint))
        shown = {"degraded": degraded, "preview": preview, "result": result}
        rows = [to_pixels(p[half]) for half in (slice(6), slice(6, 12)) for p in (*shown.values(), clean)]
        write_sheet(path, rows)
        far = {f"{name}_features": float(distance(p.clamp(-1, 1), clean)) for name, p in shown.items()}
        return {name: psnr(p, clean) for name, p in shown.items()} | far

    learning = models | {"autoencoder": autoencoder, "discriminator": discriminator}
    return Stage(
        "adversarial",
        learning,
        loss,
        sheet,
        lambda name: name.startswith("autoencoder.") and not name.startswith("autoencoder.decoder."),
    )


def main() -> None:
    """Train on from a finished diffusion run or go on, and write the averaged components to ``OUT/<component>``."""
    parser = arguments(main.__doc__, minutes=60)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--diffusion", type=Path, required=True, help="folder of components to begin with")
    parser.add_argument("--tokenizers", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True, help="EfficientNet-lite0 weights")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    options = parser.parse_args()
    prepare(options.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    autoencoder = ThinAutoencoder.from_pretrained(options.autoencoder)
    models = {name: type(model).from_pretrained(options.diffusion / name) for name, model in build(1).items()}
    tokenizers = [CLIPTokenizer.from_pretrained(options.tokenizers / name) for name in ("tokenizer", "tokenizer_2")]
    words = Words(tokenizers, [models["text_encoder"], models["text_encoder_2"]])
    stage = adversarial_stage(
        options.tiles, autoencoder, models, words, options.features, options.batch, options.crop
    )
    budget = Budget(minutes=options.minutes, learning_rate=options.learning_rate, log_steps=25, weight_decay=0.0)
    trainer = Trainer(stage, options.out, budget)
    trainer.resume()
    trainer.train()
    for name, model in (models | {"autoencoder": autoencoder}).items():
        model.save_pretrained(options.out / name)


if __name__ == "__main__":
    main()
