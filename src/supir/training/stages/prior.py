"""The prior of a small model: the UNet alone on latents of clean pictures, under their captions.

SDXL is the paper's prior and is not trained. A small model's is made here, and its text towers with it
(``learn_words``), as there is none to take over.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from supir.training.denoising import Denoising, learning_words, make_draw
from supir.training.loop import Stage
from supir.training.stage_context import StageContext

SHEET_SIGMA = 1.0
"""Noise that the sheet's pictures get and lose again."""


def prior_stage(materials: StageContext) -> Stage:
    """The stage: the UNet without its connectors, and the text towers if the options say so."""
    networks, options = materials.networks, materials.options
    denoising = Denoising(materials, controlled=False)
    learning: dict[str, Any] = {"unet": networks["unet"]}
    if options.learn_words:
        learning |= learning_words(networks)

    def pictures() -> dict[str, Tensor]:
        latent = denoising.latent(materials.heldout.clean)
        found = denoising.sample(materials.heldout.captions, start=latent, hint=None, sigma=SHEET_SIGMA, num_steps=8)
        return {"result": denoising.picture(found)}

    return Stage(
        "prior",
        learning,
        denoising.loss,
        materials.sheet(pictures, denoising.heldout_loss),
        frozen=lambda name: name.startswith("unet.connectors."),
        draw=make_draw(materials),
        batch=options.batch,
    )
