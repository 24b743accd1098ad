"""What the diffusion stages share: samples noised to a level, the loss on the noise, and sampling for the sheets.

    loss = | eps - eps_theta(alpha_t z + beta_t eps, t, words, control) |^2

as SDXL was trained; the paper names no other (section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from supir.data.pixels import Pixels
from supir.models.text import NUM_TOKENS, token_ids
from supir.prompts import NEGATIVE_PROMPT, POSITIVE_PROMPT, join_prompt
from supir.restoration.denoiser_network import SIZE_IDS
from supir.sampling.denoiser import discrete_denoiser
from supir.sampling.sigmas import Schedule, alphas_cumprod, full_range_sigmas, initial_latent, training_sigmas
from supir.sampling.solvers import edm_euler
from supir.training.pairs import degraded_by, draw_degradation, to_tensor
from supir.training.photographs import Photographs
from supir.training.recipes import StageOptions, shares
from supir.training.run_logger import Value
from supir.training.stage_context import StageContext


def training_prompt(rng: np.random.Generator, caption: str, dropout: float) -> str:
    """The prompt of a good picture in a named run: its caption, half of the time with the quality words; or nothing."""
    nothing, quality = rng.random() < dropout, rng.random() < 0.5
    if nothing:
        return ""
    return join_prompt(caption, POSITIVE_PROMPT) if quality or not caption else caption


Known = tuple[Tensor, dict[str, Tensor], Tensor | None]
"""Text tokens (B, tokens, features), pooled words with sizes, and which tokens to read (None: all)."""
KEPT_PROMPTS = 20_000
"""Prompts whose token ids are remembered, those asked for last; some 30 MB."""


LONG = "long prompts"
"""Among the values of a pass: how many of its prompts took more than one chunk of tokens."""


class Words:
    """Embeds prompts with gradient, each distinct prompt once, the token ids of the last ones remembered."""

    def __init__(self, tokenizers: Sequence[Any], encoders: Sequence[Any]) -> None:
        self.towers = list(zip(tokenizers, encoders, strict=True))
        self._known = lru_cache(KEPT_PROMPTS)(self._ids)

    def _ids(self, prompt: str) -> list[Tensor]:
        return [token_ids(tokenizer, [prompt], long_prompt="chunks")[0] for tokenizer, _ in self.towers]

    def num_long(self, prompts: Sequence[str]) -> int:
        """How many of the prompts are carried in more than one chunk of 77 tokens."""
        return sum(len(self._known(prompt)[0]) > 1 for prompt in prompts)

    def own(self, prompts: Sequence[str]) -> Tensor | None:
        """(B, 77 x chunks), true for a prompt's own tokens, false for those it is filled up with beside longer ones.

        None where all are its own.
        """
        chunks = torch.tensor([len(self._known(prompt)[0]) for prompt in prompts])
        most = int(chunks.max())
        return None if int(chunks.min()) == most else torch.arange(NUM_TOKENS * most) < NUM_TOKENS * chunks[:, None]

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(tokens (B, 77 x chunks, features), pooled (B, features)) as ``TextTowers.encode`` gives them."""
        distinct = sorted(set(prompts))
        back = torch.tensor([distinct.index(prompt) for prompt in prompts])
        chunks = max(len(self._known(prompt)[0]) for prompt in distinct)
        hidden, pooled = [], torch.empty(0)
        for number, (_, encoder) in enumerate(self.towers):
            [nothing] = self._known("")[number]
            known = [self._known(prompt)[number] for prompt in distinct]
            ids = torch.cat([row for rows in known for row in (rows, nothing.expand(chunks - len(rows), -1))])
            output = encoder(ids.to(encoder.device), output_hidden_states=True)
            hidden.append(output.hidden_states[-2].unflatten(0, (-1, chunks)).flatten(1, 2))
            if hasattr(output, "text_embeds"):
                pooled = output.text_embeds.unflatten(0, (-1, chunks))[:, 0]
        return torch.cat(hidden, -1)[back], pooled[back]


@dataclass(frozen=True)
class Sample:
    """One training sample, everything of chance in it drawn."""

    target: Pixels
    """(S, S, 3): what is to come out."""
    degraded: Pixels
    """(S, S, 3): what the adaptor sees of it."""
    degradation: str
    """How it was made, one line that replays it (``Degradation.from_json``)."""
    prompt: str
    timestep: int
    noise: npt.NDArray[np.float32]
    """(C, S / 8, S / 8)."""


@dataclass(frozen=True)
class Draw:
    """Draws samples; nothing but generator and number decide, and it goes to other processes."""

    photographs: Photographs
    negatives: Photographs | None
    options: StageOptions
    latent_shape: tuple[int, int, int]

    def __call__(self, rng: np.random.Generator, number: int | None = None) -> Sample:
        """Sample ``number`` of a run."""
        options = self.options
        poor = bool(rng.random() < options.negative_share)
        source = self.negatives if poor and self.negatives is not None else self.photographs
        crop = source.draw(rng, options.crop, number)
        degradation = draw_degradation(rng, shares(options.degradation))
        degraded = degraded_by(degradation, crop.pixels)
        prompt = training_prompt(rng, crop.caption, options.caption_dropout)
        if poor or crop.negative:
            prompt = NEGATIVE_PROMPT
        # Without negative pictures the damage itself is what must not come out.
        target = degraded if poor and self.negatives is None else crop.pixels
        timestep = draw_timestep(rng, options.timesteps)
        noise = rng.standard_normal(self.latent_shape, dtype=np.float32)
        return Sample(target, degraded, degradation.to_json(), prompt, timestep, noise)


def draw_timestep(rng: np.random.Generator, kind: str) -> int:
    """An index into the training levels: ``uniform``, as SDXL's; ``detail``: four of five log-normal in sigma.

    In the bundled model's latent fine detail has a deviation of about 6, and 1 of noise costs a picture 10 dB.
    """
    sigmas = training_sigmas().numpy()
    if kind == "uniform" or rng.random() < 0.2:
        return int(rng.integers(len(sigmas)))
    level = np.exp(rng.standard_normal() * 1.1 + 0.6)
    return min(int(np.searchsorted(sigmas, level)), len(sigmas) - 1)


class Denoising:
    """The networks of a diffusion stage and what is computed with them; ``controlled`` by adaptor and connectors."""

    def __init__(self, materials: StageContext, *, controlled: bool) -> None:
        networks = materials.networks
        self.materials, self.controlled = materials, controlled
        self.autoencoder, self.unet = networks["autoencoder"], networks["unet"]
        self.adaptor: Any = networks.get("adaptor")
        self.words = Words(
            [networks["tokenizer"], networks["tokenizer_2"]], [networks["text_encoder"], networks["text_encoder_2"]]
        )
        self.scaling, self.device = materials.scaling, materials.device
        self._signal = alphas_cumprod().float().to(self.device)

    @torch.no_grad()
    def latent(self, pictures: Tensor, *, degraded: bool = False, detail: float | None = None) -> Tensor:
        """Scaled latents (B, C, h, w) of pictures (B, 3, 8h, 8w) in [-1, 1], by E or by E_dr: the posterior's mode.

        ``detail`` is E_dr's, for one that has it; None takes its own.
        """
        encode = self.autoencoder.encode_degraded if degraded else self.autoencoder.encode
        more = () if detail is None else (detail,)
        moments: Tensor = encode(pictures.to(self.device, self.autoencoder.dtype), *more).latent_dist.mode()
        return moments.float() * self.scaling

    @torch.no_grad()
    def picture(self, latent: Tensor) -> Tensor:
        """Pictures of scaled latents."""
        decoded: Tensor = self.autoencoder.decode((latent / self.scaling).to(self.autoencoder.dtype)).sample
        return decoded.float()

    def loss(self, samples: Sequence[Sample], progress: float) -> tuple[Tensor, dict[str, Value]]:
        """The loss of a batch, a mean over its samples."""
        latent = self.latent(to_tensor([sample.target for sample in samples]))
        hint = None
        if self.controlled:
            hint = self.latent(to_tensor([sample.degraded for sample in samples]), degraded=True)
        timestep = torch.tensor([sample.timestep for sample in samples], device=self.device)
        noise = torch.from_numpy(np.stack([sample.noise for sample in samples])).to(self.device)
        known = self.known([sample.prompt for sample in samples])
        error = self.error(latent, hint, timestep, noise, known)
        return error, {"mse": error.detach(), LONG: float(self.words.num_long([sample.prompt for sample in samples]))}

    def error(
        self,
        latent: Tensor,
        hint: Tensor | None,
        timestep: Tensor,
        noise: Tensor,
        known: Known,
    ) -> Tensor:
        """Mean square error of the prediction at given levels; ``hint`` None leaves adaptor and connectors out."""
        alpha = self._signal[timestep].sqrt()[:, None, None, None]
        beta = (1 - self._signal[timestep]).sqrt()[:, None, None, None]
        predicted = self.predicted(alpha * latent + beta * noise, timestep, hint, known)
        velocity = self.unet.config.prediction_type == "v_prediction"
        return F.mse_loss(predicted.float(), alpha * noise - beta * latent if velocity else noise)

    def known(self, prompts: Sequence[str]) -> Known:
        """What UNet and adaptor are told: text tokens, pooled words with sizes, and which tokens to read.

        A prompt beside a longer one does not read what it is filled up with: it learns what it learns alone.
        """
        tokens, pooled = self.words(prompts)
        own = self.words.own(prompts)
        own = None if own is None else own.to(self.device)
        sizes = torch.tensor([SIZE_IDS] * len(prompts), device=self.device)
        return tokens, {"text_embeds": pooled, "time_ids": sizes}, own

    def predicted(self, noisy: Tensor, timestep: Tensor, hint: Tensor | None, known: Known) -> Tensor:
        """What the UNet predicts for latents at training levels; ``hint`` None leaves adaptor and connectors out."""
        tokens, vector, own = known
        read = {"encoder_attention_mask": own}
        control = None if hint is None else self.adaptor(noisy, timestep, tokens, vector, hint, **read)
        predicted: Tensor = self.unet(noisy, timestep, tokens, added_cond_kwargs=vector, control=control, **read).sample
        return predicted

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[str], *, start: Tensor, hint: Tensor | None, sigma: float, num_steps: int, seed: int = 0
    ) -> Tensor:
        """Scaled latents after ``num_steps`` from ``start`` noised to ``sigma``, without guidance."""
        known = self.known(prompts)

        def network(x: Tensor, timestep: Tensor, _: Tensor) -> Tensor:
            return self.predicted(x, timestep, hint, known).float()

        levels = full_range_sigmas(num_steps, sigma)
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        denoise = discrete_denoiser(network, self.unet.config.prediction_type, quantised=False)
        return edm_euler(denoise, initial_latent(noise, levels, start), Schedule(levels))

    @torch.no_grad()
    def heldout_loss(self, levels: Sequence[int] = (50, 250, 500, 750, 950)) -> dict[str, float]:
        """The loss on the held-out pictures at fixed levels, with fixed noise."""
        heldout = self.materials.heldout
        latent = self.latent(heldout.clean)
        hint = self.latent(heldout.degraded, degraded=True) if self.controlled else None
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1)).to(self.device)
        known = self.known(heldout.captions)
        errors = [
            self.error(latent, hint, torch.full((len(latent),), level, device=self.device), noise, known)
            for level in levels
        ]
        return {"loss": float(torch.stack(errors).mean())}


def make_draw(materials: StageContext) -> Draw:
    """The samples of a diffusion stage."""
    return Draw(materials.photographs, materials.negatives, materials.options, materials.latent_shape)


def learning_words(networks: dict[str, Any]) -> dict[str, Any]:
    """Both text towers, by name."""
    return {name: networks[name] for name in ("text_encoder", "text_encoder_2")}
