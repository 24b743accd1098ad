"""UNet, adaptor, connectors and text towers together, as the bundled model was made.

    python -m supir.training.diffusion --tiles TILES --autoencoder RUN2/autoencoder --tokenizers FOLDER --out RUN3

The paper freezes SDXL and trains adaptor and connectors only. An hour of one processor makes no prior worth freezing,
so here all learn together from random weights; ``prior`` and ``adaptor`` are the paper's way in two stages. Part of the
steps go without control, so that a plain prior exists too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer

from supir.conditions import SIZE_IDS
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.prompts import POSITIVE_PROMPT
from supir.sampling.denoiser import discrete_denoiser
from supir.sampling.sigmas import Schedule, alphas_cumprod, full_range_sigmas, initial_latent, training_sigmas
from supir.sampling.solvers import edm_euler
from supir.training.by_hand import arguments, prepare, run
from supir.training.crops import Tiles, halved, psnr, to_tensor, write_sheet
from supir.training.degraded_encoder import heldout_pairs
from supir.training.loop import Stage
from supir.training.pairs import degrade
from supir.training.sizes import build
from supir.training.words import NEGATIVE_PROMPT, NEGATIVE_SHARE, Words, draw_prompt

START_SIGMA = 3.0
"""Of the sample sheets: noise up to here hides what the hint does not know, and leaves what it knows."""
FREE_SHARE = 0.06
"""Share of steps without control."""


def draw_timesteps(batch: int, sigmas: Tensor) -> Tensor:
    """Indices (B,): a fifth uniform, the rest log-normal in sigma where a restoration decides its texture.

    Fine detail has a deviation of about 6 in the latent, and 1 of noise costs a picture 10 dB.
    """
    uniform = torch.randint(0, len(sigmas), (batch,))
    levels = torch.exp(torch.randn(batch) * 1.1 + 0.6)
    return torch.where(torch.rand(batch) < 0.2, uniform, torch.searchsorted(sigmas, levels).clamp(max=len(sigmas) - 1))


def diffusion_stage(
    tiles: Path, autoencoder: ThinAutoencoder, models: dict[str, Any], words: Words, batch: int, crop: int
) -> Stage:
    """The stage; the autoencoder is fixed and in no checkpoint."""
    train, (clean, degraded) = Tiles(tiles), heldout_pairs(tiles, 192)
    unet, adaptor = models["unet"], models["adaptor"]
    scaling = autoencoder.config.scaling_factor
    signal, sigmas = alphas_cumprod().float(), training_sigmas()

    def targets(rng: np.random.Generator) -> tuple[Tensor, Tensor, list[str]]:
        crops = [train.crop(rng, crop) for _ in range(batch)]
        x = to_tensor([picture for picture, _ in crops])
        lq = to_tensor([degrade(rng, picture) for picture, _ in crops])
        prompts = [draw_prompt(rng, caption) for _, caption in crops]
        with torch.no_grad():
            hint = autoencoder.encode_degraded(lq).latent_dist.mode() * scaling
            poor = rng.random(batch) < NEGATIVE_SHARE
            for index in np.flatnonzero(poor):
                # Poor targets are what must not come out: the damage itself, or the over-smooth preview.
                over_smooth = autoencoder.decode(hint[index : index + 1] / scaling).sample[0]
                x[index] = lq[index] if rng.random() < 0.5 else over_smooth
                prompts[index] = NEGATIVE_PROMPT
            latent = autoencoder.encode(x).latent_dist.mode() * scaling
        return latent, hint, prompts

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        latent, hint, prompts = targets(rng)
        # Preparing a sample costs half as much as learning from it, so each is noised to two levels.
        latent, hint, prompts = latent.repeat(2, 1, 1, 1), hint.repeat(2, 1, 1, 1), prompts * 2
        timestep, noise = draw_timesteps(len(latent), sigmas), torch.randn_like(latent)
        alpha = signal[timestep].sqrt()[:, None, None, None]
        beta = (1 - signal[timestep]).sqrt()[:, None, None, None]
        noisy = alpha * latent + beta * noise
        tokens, pooled = words(prompts)
        known = {"text_embeds": pooled, "time_ids": torch.tensor([SIZE_IDS] * len(latent))}
        control = None if rng.random() < FREE_SHARE else adaptor(noisy, timestep, tokens, known, hint)
        # The noise and not a velocity: latents deviate by 6, and a velocity asks for their level to that precision.
        prediction = unet(noisy, timestep, tokens, added_cond_kwargs=known, control=control).sample
        error = F.mse_loss(prediction, noise)
        return error, {"free" if control is None else "mse": error.item()}

    def sheet(path: Path | None) -> dict[str, float]:
        hint = autoencoder.encode_degraded(degraded).latent_dist.mode() * scaling
        result = autoencoder.decode(sample(models, words, hint, num_steps=16) / scaling).sample
        preview = autoencoder.decode(hint / scaling).sample
        write_sheet(path, halved([degraded, preview, result, clean]))
        return {"degraded": psnr(degraded, clean), "preview": psnr(preview, clean), "result": psnr(result, clean)}

    return Stage("diffusion", models, loss, sheet)


def denoiser(models: dict[str, Any], words: Words, hint: Tensor, prompts: list[str]) -> Callable[..., Tensor]:
    """``(x, sigma) -> denoised`` with ``hint`` (B, C, h, w) under the prompts, one a sample, without guidance."""
    tokens, pooled = words(prompts)
    known = {"text_embeds": pooled, "time_ids": torch.tensor([SIZE_IDS] * len(hint))}

    def network(x: Tensor, timestep: Tensor, _: Tensor) -> Tensor:
        control = models["adaptor"](x, timestep, tokens, known, hint)
        noise: Tensor = models["unet"](x, timestep, tokens, added_cond_kwargs=known, control=control).sample
        return noise

    return discrete_denoiser(network, quantised=False)


def sample(
    models: dict[str, Any], words: Words, hint: Tensor, num_steps: int, start_sigma: float = START_SIGMA
) -> Tensor:
    """Latents of ``hint``'s shape, begun with it noised to ``start_sigma``, under the quality words."""
    levels = full_range_sigmas(num_steps, start_sigma)
    noise = torch.randn(hint.shape, generator=torch.Generator().manual_seed(0))
    denoise = denoiser(models, words, hint, [POSITIVE_PROMPT] * len(hint))
    return edm_euler(denoise, initial_latent(noise, levels, hint), Schedule(levels))


def main() -> None:
    """Train from scratch or go on, and write the averaged components to ``OUT/<component>``."""
    parser = arguments(main.__doc__, minutes=60)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--tokenizers", type=Path, required=True)
    parser.add_argument("--warm-start", type=Path, help="folder of components to begin with, where no state is")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    options = parser.parse_args()
    prepare(options.threads)
    torch.manual_seed(0)
    autoencoder = ThinAutoencoder.from_pretrained(options.autoencoder).requires_grad_(False)
    models = build(autoencoder.config.latent_channels)
    if options.warm_start:
        models = {name: type(model).from_pretrained(options.warm_start / name) for name, model in models.items()}
    tokenizers = [CLIPTokenizer.from_pretrained(options.tokenizers / name) for name in ("tokenizer", "tokenizer_2")]
    words = Words(tokenizers, [models["text_encoder"], models["text_encoder_2"]])
    stage = diffusion_stage(options.tiles, autoencoder, models, words, options.batch, options.crop)
    run(stage, options, learning_rate=options.learning_rate, weight_decay=0.01)
    for name, model in models.items():
        model.save_pretrained(options.out / name)


if __name__ == "__main__":
    main()
