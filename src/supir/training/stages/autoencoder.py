"""The autoencoder of a small model.

L1 on pixels, L1 on differences of neighbours (sharpness), a slight KL term, and in the last part of the run a distance
in the features of a small classification network when its weights are given (``features``). E_dr does not learn here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from supir.data.pixels import Pixels
from supir.models.perceptual import EfficientNetLite0
from supir.models.thin_autoencoder import FACTOR, ThinAutoencoder
from supir.training.loop import Stage
from supir.training.pairs import to_tensor
from supir.training.photographs import Photographs
from supir.training.stage_context import StageContext

_COMPARED = (0, 2, 4)
"""Blocks whose outputs are compared: at a half, a quarter and an eighth of the size."""


class FeatureDistance(nn.Module):
    """Mean L1 distance of channel-normalised features of EfficientNet-lite0's first blocks.

    Its weights steer training only and are not part of the bundled model; its card names them. Pictures are (B, 3, H,
    W) in [-1, 1], the network's own range.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.network = EfficientNetLite0(torch.load(weights, weights_only=True, map_location="cpu"))

    def features(self, x: Tensor) -> list[Tensor]:
        """Normalised features after the blocks that are compared, fine to coarse."""
        found = list(islice(self.network.blocks(x), _COMPARED[-1] + 1))
        return [found[k] * (found[k].square().mean(1, keepdim=True) + 1e-3).rsqrt() for k in _COMPARED]

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The distance, a scalar, in full precision; the second picture is a target without gradient."""
        with torch.autocast(first.device.type, enabled=False):
            with torch.no_grad():
                target = self.features(second.float())
            pairs = zip(self.features(first.float()), target, strict=True)
            return torch.stack([(found - wanted).abs().mean() for found, wanted in pairs]).mean()


KL_WEIGHT = 1e-5
WHITENING = 0.75
"""1 gives every latent channel the same deviation, 0 leaves the principal components as they are."""
FIRST_LOG_VARIANCE = -5.0
FEATURE_WEIGHT = 0.1
FEATURES_FROM = 0.3
"""Progress from which the feature distance counts: before it, plain fitting is faster."""


def sharpness(first: Tensor, second: Tensor) -> Tensor:
    """L1 distance of the differences between neighbours, one and two pixels apart."""
    difference = first - second
    total = difference.new_zeros(())
    for gap in (1, 2):
        total = total + (difference[..., gap:] - difference[..., :-gap]).abs().mean()
        total = total + (difference[..., gap:, :] - difference[..., :-gap, :]).abs().mean()
    return total / 4


@dataclass(frozen=True)
class Draw:
    """Draws a crop and the noise of its posterior."""

    photographs: Photographs
    size: int
    latent_shape: tuple[int, int, int]

    def __call__(self, rng: np.random.Generator, number: int | None = None) -> tuple[Pixels, npt.NDArray[np.float32]]:
        """Sample ``number`` of a run."""
        crop = self.photographs.draw(rng, self.size, number)
        return crop.pixels, rng.standard_normal(self.latent_shape, dtype=np.float32)


def autoencoder_stage(materials: StageContext) -> Stage:
    """The stage: everything of the autoencoder but E_dr learns."""
    model, options, clean = materials.networks["autoencoder"], materials.options, materials.heldout.clean
    distance = FeatureDistance(Path(options.features)).to(materials.device) if options.features else None

    def loss(
        samples: Sequence[tuple[Pixels, npt.NDArray[np.float32]]], progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        x = to_tensor([pixels for pixels, _ in samples]).to(materials.device)
        noise = torch.from_numpy(np.stack([noise for _, noise in samples])).to(materials.device)
        posterior = model.encode(x).latent_dist
        y = model.decode(posterior.mean + posterior.std * noise).sample
        pixel, sharp = (y - x).abs().mean(), sharpness(y, x)
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        total = pixel + sharp + KL_WEIGHT * kl
        values = {"l1": pixel, "sharp": sharp, "kl": kl, "std": posterior.std.mean()}
        if distance is not None and progress > FEATURES_FROM:
            perceived = distance(y, x)
            total = total + FEATURE_WEIGHT * perceived
            values["features"] = perceived
        return total, {name: value.detach() for name, value in values.items()}

    def pictures() -> dict[str, Tensor]:
        return {"result": model.decode(model.encode(clean.to(materials.device)).latent_dist.mode()).sample}

    return Stage(
        "autoencoder",
        {"autoencoder": model},
        loss,
        materials.sheet(pictures),
        frozen=lambda name: name.startswith(("autoencoder.restorer.", "autoencoder.degraded_encoder.")),
        draw=Draw(materials.photographs, options.crop, materials.latent_shape),
        batch=options.batch,
    )


def sampled(photographs: Photographs, size: int, number: int = 60) -> Pixels:
    """Crops (number, size, size, 3) from which the principal components are taken."""
    return np.stack([photographs.draw(np.random.default_rng((1, index)), size).pixels for index in range(number)])


def start_from_principal_components(model: ThinAutoencoder, pixels: Pixels) -> None:
    """Set the linear maps to the principal components of 8 x 8 blocks; the networks add what a linear map cannot.

    Component k is divided by its deviation to the power ``WHITENING``, all by one number so that the mean square is 1:
    fine detail gets a fair share of the latents, and coarse shades stay the most robust to noise. ``pixels`` are crops
    (N, S, S, 3) uint8 with S a multiple of 8.
    """
    sample = pixels.astype(np.float32) / 127.5 - 1
    side = sample.shape[1] // FACTOR
    blocks = sample.reshape(-1, side, FACTOR, side, FACTOR, 3).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 3 * FACTOR**2)
    mean = blocks.mean(0)
    variance, vectors = np.linalg.eigh(np.cov((blocks - mean).T))
    channels = model.config.latent_channels
    deviation = torch.from_numpy(np.sqrt(variance[::-1][:channels])).float()
    basis, middle = torch.from_numpy(vectors[:, ::-1][:, :channels].copy()).float(), torch.from_numpy(mean).float()
    scale = deviation**WHITENING
    scale = scale * (deviation / scale).square().mean().sqrt()
    with torch.no_grad():
        forward = (basis / scale).T
        model.encoder.linear.weight.zero_()[:channels] = forward.view(channels, 3, FACTOR, FACTOR)
        model.encoder.linear.bias.zero_()[:channels] = -forward @ middle  # type: ignore[union-attr]
        model.encoder.conv_out.bias.zero_()[channels:] = FIRST_LOG_VARIANCE  # type: ignore[union-attr]
        model.decoder.linear.weight.copy_((basis * scale)[:, :, None, None])
        model.decoder.linear.bias.copy_(middle)  # type: ignore[union-attr]
        model.decoder.conv_out.bias.zero_()  # type: ignore[union-attr]
