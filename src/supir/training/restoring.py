"""The networks of a model as its sampler uses them, for stages that learn from whole answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from supir.models.thin_autoencoder import ThinAutoencoder
from supir.sampling.sigmas import full_range_sigmas, initial_latent
from supir.training.diffusion import denoiser, sample
from supir.training.sizes import build, with_fresh_connectors
from supir.training.words import Words

START_SIGMA = 1.0
"""Noise that the preview's latent begins with: a quarter of the latents' own deviation."""
NUM_STEPS = (1, 2, 4)
"""Steps a sampling that learns may take."""
STEP_SHARES = (0.6, 0.2, 0.2)
"""How often it takes so many: one is what the presets take."""
LEARNING = ("unet", "adaptor")


class Restoring:
    """The networks as the sampler uses them: steps from a noised hint to an answer."""

    def __init__(self, models: dict[str, Any], autoencoder: ThinAutoencoder, words: Words) -> None:
        self.models, self.autoencoder, self.words = models, autoencoder, words
        for name in models.keys() - set(LEARNING):
            models[name].requires_grad_(False)
        self.scaling = float(autoencoder.config.scaling_factor)

    @classmethod
    def load(
        cls, model: Path, autoencoder: Path | None = None, begin: Path | None = None, connectors: str | None = None
    ) -> Restoring:
        """The networks of a model folder, in full precision.

        Args:
            model: whose networks they are.
            autoencoder: folder of another one, whose E_dr makes the hint.
            begin: folder whose UNet and adaptor are taken instead.
            connectors: kind of fresh connectors that take the place of the UNet's.
        """
        coder = ThinAutoencoder.from_pretrained(autoencoder or model / "autoencoder", dtype=torch.float32)
        kinds = build(coder.config.latent_channels)
        folders = {name: (begin if name in LEARNING else None) or model for name in kinds}
        models = {n: type(m).from_pretrained(folders[n] / n, dtype=torch.float32) for n, m in kinds.items()}
        if connectors:
            models["unet"] = with_fresh_connectors(models["unet"], connectors)
        tokenizers = [CLIPTokenizer.from_pretrained(model / name) for name in ("tokenizer", "tokenizer_2")]
        words = Words(tokenizers, [models["text_encoder"], models["text_encoder_2"]])
        return cls(models, coder.requires_grad_(False), words)

    @torch.no_grad()
    def hint(self, lq: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) that E_dr makes of degraded pictures (B, 3, 8h, 8w) in [-1, 1]."""
        return self.autoencoder.encode_degraded(lq).latent_dist.mode() * self.scaling

    @torch.no_grad()
    def latent(self, picture: Tensor) -> Tensor:
        """Scaled latents of good pictures."""
        return self.autoencoder.encode(picture).latent_dist.mode() * self.scaling

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
        num_steps = int(rng.choice(NUM_STEPS, p=STEP_SHARES))
        return self.answer(hint, prompts, torch.randn_like(hint), num_steps, int(rng.integers(num_steps)))

    @torch.no_grad()
    def sample(self, hint: Tensor, num_steps: int) -> Tensor:
        """Latents after all steps under the quality words."""
        return sample(self.models, self.words, hint, num_steps, START_SIGMA)

    @torch.no_grad()
    def restored(self, lq: Tensor) -> Tensor:
        """What one step makes of degraded pictures (B, 3, 8h, 8w) in [-1, 1]."""
        return self.picture(self.sample(self.hint(lq), 1))
