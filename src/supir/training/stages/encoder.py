"""The degradation-robust encoder E_dr (paper section 3.1), for an SDXL-like autoencoder and for the thin one.

The paper prints

    L_E = | D(E_dr(x_LQ)) - D(E_dr(x_GT)) |^2

with E_dr on both sides and D fixed. Any encoder that ignores its input makes it zero, and who trained with it alone got
dark pictures. Two terms make the minimum the one that is meant, each 0 only where E_dr still reads the picture:

    | E_dr(x_LQ) - E(x_GT) |^2       the frozen encoder's latent of the clean picture as a fixed target
    | D(E_dr(x_GT)) - x_GT |^2       the ordinary reconstruction of clean pictures
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from supir.data.pixels import Pixels
from supir.training.loop import Stage
from supir.training.pairs import degrade, to_tensor
from supir.training.photographs import Photographs
from supir.training.recipes import StageOptions, shares
from supir.training.stage_context import StageContext

_LEARNING = ("restorer.", "degraded_encoder.")


@dataclass(frozen=True)
class Draw:
    """Draws a clean crop and its degraded twin."""

    photographs: Photographs
    options: StageOptions

    def __call__(self, rng: np.random.Generator, number: int | None = None) -> tuple[Pixels, Pixels]:
        """Sample ``number`` of a run."""
        clean = self.photographs.draw(rng, self.options.crop, number).pixels
        return clean, degrade(rng, clean, shares(self.options.degradation))


def encoder_terms(autoencoder: Any, clean: Tensor, degraded: Tensor) -> dict[str, Tensor]:
    """The three terms, each a mean: ``printed`` and ``reconstruction`` in pixels, ``fixed`` in scaled latents.

    ``clean`` and ``degraded`` are (B, 3, H, W) in [-1, 1]; the gradient reaches E_dr on both sides.
    """
    scaling = float(autoencoder.config.scaling_factor)
    with torch.no_grad():
        target = autoencoder.encode(clean).latent_dist.mode()
    from_degraded = autoencoder.encode_degraded(degraded).latent_dist.mode()
    from_clean = autoencoder.encode_degraded(clean).latent_dist.mode()
    preview, again = (autoencoder.decode(latent).sample for latent in (from_degraded, from_clean))
    return {
        "printed": F.mse_loss(preview, again),
        "fixed": F.mse_loss(from_degraded * scaling, target * scaling),
        "reconstruction": F.mse_loss(again, clean),
    }


def with_copied_encoder(autoencoder: Any, seed: int) -> Any:
    """The autoencoder whose E_dr is E: SDXL-like, by E's weights; the thin one by a new restoring network, which is the
    identity before it learns and is drawn by ``seed``."""
    if hasattr(autoencoder, "degraded_encoder"):
        autoencoder.degraded_encoder.load_state_dict(autoencoder.encoder.state_dict())
        return autoencoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return autoencoder.with_new_restorer(dense_blocks=0, plain_end=False)


def encoder_stage(materials: StageContext) -> Stage:
    """The stage: only E_dr learns, which is ``degraded_encoder`` or the thin autoencoder's ``restorer``."""
    model, options, heldout = materials.networks["autoencoder"], materials.options, materials.heldout
    weights = {
        "printed": options.printed_weight,
        "fixed": options.fixed_weight,
        "reconstruction": options.reconstruction_weight,
    }

    def loss(samples: Sequence[tuple[Pixels, Pixels]], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        x, lq = (to_tensor([pair[side] for pair in samples]).to(materials.device) for side in (0, 1))
        terms = encoder_terms(model, x, lq)
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return total, {name: term.detach() for name, term in terms.items()}

    def pictures() -> dict[str, Tensor]:
        lq, x = heldout.degraded.to(materials.device), heldout.clean.to(materials.device)
        best = model.decode(model.encode(x).latent_dist.mode()).sample
        preview = model.decode(model.encode_degraded(lq).latent_dist.mode()).sample
        return {"degraded": lq, "result": preview, "autoencoder": best}

    return Stage(
        "encoder",
        {"autoencoder": model},
        loss,
        materials.sheet(pictures),
        frozen=lambda name: not name.removeprefix("autoencoder.").startswith(_LEARNING),
        draw=Draw(materials.photographs, options),
        batch=options.batch,
    )
