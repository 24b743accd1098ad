"""UNet and adaptor as a generator of one or few steps, learned through the decoder.

Not in the paper, whose prior has seen a hundred million pictures and paints in fifty steps. From E_dr's latent noised
to ``start_sigma`` one, two or four steps are taken as the sampler does, the answer of one of them is decoded, and its
pixels are asked for what ``Losses`` says: the truth, VGG16's features of it, and what a discriminator of high wavelet
sub-bands takes for real. (One step through the decoder: OSEDiff, arXiv 2406.08177; a step that begins low, against a
discriminator of pictures: HYPIR, arXiv 2507.20590.)

With ``frozen_prior`` adaptor and connectors learn it beside SDXL's UNet and decoder. A small prior trained on noise
alone predicts the mean, which is smooth: there UNet and decoder learn with them.

Under the negative words the answer is to be the degraded picture's own latent, so that guidance away from them goes
away from the damage (paper section 3.2). What E_dr's plain end made is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from supir.errors import OptionError
from supir.options import RestoreOptions
from supir.prompts import NEGATIVE_PROMPT, POSITIVE_PROMPT
from supir.sampling.denoiser import discrete_denoiser
from supir.sampling.sigmas import full_range_sigmas, initial_latent
from supir.training.denoising import LONG, Denoising, Sample, make_draw
from supir.training.loop import Stage
from supir.training.pairs import to_tensor
from supir.training.recipes import StageOptions
from supir.training.run_logger import Value
from supir.training.stage_context import StageContext
from supir.training.stages.adaptor import is_prior
from supir.training.stages.restorer import DISCRIMINATOR_RATE, Losses, WaveletDiscriminator, opposed

NUM_STEPS = (1, 1, 1, 2, 4)
"""Steps of a sampling that learns, one of these after the other."""
KEPT_WEIGHT = 1.0
"""Of the decoder's ordinary task, the picture of a clean latent: it also makes the preview."""
LATENT_WEIGHT = 0.1
"""Of the distance in scaled latents of what is to be one latent, and no picture: negative and plain samples."""
_PLAIN_SAMPLING = frozenset(
    {"solver", "grid", "eta", "text_guidance_start", "control_scale", "control_scale_start", "restoration_guidance"}
)
"""Options that are as they are by default where few steps were learned."""
PLAIN = 14
"""One in so many samples begins from E_dr's plain end, where it has one, and is to stay as it is: else the dial from
faithful to vivid would end where UNet and adaptor paint."""


def generator_stage(materials: StageContext) -> Stage:
    """The stage: UNet, adaptor and decoder learn, or with ``frozen_prior`` adaptor and connectors; nothing else.

    Raises:
        OptionError: the file of VGG16's features is not named, or the autoencoder has no decoder of its own.
        WeightsError: a file cannot be read.
    """
    networks, options = materials.networks, materials.options
    if not options.perceptual or not options.perceptual_weight:
        raise OptionError(
            f"perceptual is {options.perceptual!r} and perceptual_weight {options.perceptual_weight}; name the file"
            " that `supir evaluate --weights FOLDER --fetch` makes, and a weight above 0"
        )
    losses, denoising = Losses(options, materials.device), Denoising(materials, controlled=True)
    opponent = WaveletDiscriminator().to(materials.device) if options.adversarial_share else None
    two_ends = bool(getattr(networks["autoencoder"], "has_detail", False))

    def loss(samples: Sequence[Sample], progress: float) -> tuple[Tensor, dict[str, Value]]:
        degraded = to_tensor([sample.degraded for sample in samples]).to(materials.device)
        clean = to_tensor([sample.target for sample in samples]).to(materials.device)
        told = [sample.prompt == NEGATIVE_PROMPT for sample in samples]  # known here: the device need not be asked
        plain = [
            two_ends and sample.timestep % PLAIN == 0 and not poor for sample, poor in zip(samples, told, strict=True)
        ]
        hint, wanted = denoising.latent(degraded, degraded=True), denoising.latent(degraded)
        for place in (place for place, is_plain in enumerate(plain) if is_plain):
            hint[place] = wanted[place] = denoising.latent(degraded[place : place + 1], degraded=True, detail=0.0)[0]
        found = _answer(denoising, samples, hint, round(progress * options.steps))
        left = (found - wanted).square().mean((1, 2, 3))
        of_poor, of_plain = ((left * torch.tensor(each, device=materials.device)).mean() for each in (told, plain))
        total = LATENT_WEIGHT * (of_poor + of_plain)
        values: dict[str, Value] = {"negative": of_poor.detach(), "plain": of_plain.detach()}
        values[LONG] = float(denoising.words.num_long([sample.prompt for sample in samples]))
        painted = [place for place in range(len(samples)) if not told[place] and not plain[place]]
        if painted:
            good = torch.tensor(painted, device=materials.device)
            made = _decoded(denoising, found[good])
            asked, more = opposed(losses, opponent, made, clean[good], degraded[good], progress)
            total = total + asked
            values.update(more)
        elif opponent is not None:  # in other processes it learns: where parameters lie in shards, all give a gradient
            total = total + 0 * opponent(clean[:1]).mean()
        if options.frozen_prior:
            return total, values
        kept = (_decoded(denoising, denoising.latent(clean)) - clean).abs().mean()
        return total + KEPT_WEIGHT * kept, values | {"kept": kept.detach()}

    def pictures() -> dict[str, Tensor]:
        lq = materials.heldout.degraded
        hint = denoising.latent(lq, degraded=True)
        words = [POSITIVE_PROMPT] * len(lq)
        shown = {"degraded": lq, "preview": denoising.picture(hint)}
        for name, steps in (("result", 1), ("four", 4)):
            latent = denoising.sample(words, start=hint, hint=hint, sigma=options.start_sigma, num_steps=steps)
            shown[name] = denoising.picture(latent)
        return shown

    learning = ("unet", "adaptor") if options.frozen_prior else ("autoencoder", "unet", "adaptor")
    modules: dict[str, nn.Module] = {name: networks[name] for name in learning}
    return Stage(
        "generator",
        modules if opponent is None else modules | {"opponent": opponent},
        loss,
        materials.sheet(pictures),
        frozen=is_prior if options.frozen_prior else _but_the_decoder,
        pace={"opponent": DISCRIMINATOR_RATE},
        draw=make_draw(materials),
        batch=options.batch,
    )


def _but_the_decoder(name: str) -> bool:
    return name.startswith("autoencoder.") and not name.startswith("autoencoder.decoder.")


def presets_of(options: StageOptions, presets: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The numbers of the model that comes out: under every preset one unguided step from where it learned to begin."""
    as_learned: dict[str, Any] = {
        "num_steps": 1,
        "start_sigma": options.start_sigma,
        "text_guidance": 1.0,
        "s_churn": 0.0,
    }
    as_learned |= {name: field.default for name, field in RestoreOptions.fields().items() if name in _PLAIN_SAMPLING}
    own = {name: {key: presets[name][key] for key in presets[name].keys() - as_learned.keys()} for name in presets}
    return own | {"all": own.get("all", {}) | as_learned}


def _answer(denoising: Denoising, samples: Sequence[Sample], hint: Tensor, turn: int) -> Tensor:
    """The denoised latents of one step, reached as the sampler would; only that step has a gradient.

    ``turn`` says of which sampling, and which of its steps: the same in all processes, whose shards meet in each.
    """
    number = NUM_STEPS[turn % len(NUM_STEPS)]
    step = turn // len(NUM_STEPS) % number
    known = denoising.known([sample.prompt for sample in samples])

    def network(x: Tensor, timestep: Tensor, _: Tensor) -> Tensor:
        predicted: Tensor = denoising.predicted(x, timestep, hint, known).float()
        return predicted

    denoise = discrete_denoiser(network, denoising.unet.config.prediction_type, quantised=False)
    sigmas = full_range_sigmas(number, denoising.materials.options.start_sigma)
    noise = torch.stack([torch.from_numpy(sample.noise) for sample in samples]).to(hint.device)
    x = initial_latent(noise, sigmas, hint)
    with torch.no_grad():
        for index in range(step):
            denoised = denoise(x, sigmas[index].expand(len(x)))
            x = denoised + (x - denoised) * (sigmas[index + 1] / sigmas[index])
    found: Tensor = denoise(x, sigmas[step].expand(len(x)))
    return found


def _decoded(denoising: Denoising, latent: Tensor) -> Tensor:
    decoded: Any = denoising.autoencoder.decode(latent / denoising.scaling).sample
    found: Tensor = decoded.float()
    return found
