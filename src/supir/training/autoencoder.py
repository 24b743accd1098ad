"""Stage 1: the autoencoder.

    python -m supir.training.autoencoder --tiles TILES --out RUN

L1 on pixels, L1 on differences of neighbours (sharpness), a slight KL term, and in the last part of the run a distance
in the features of a small classification network when its weights are given (``--features``).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from supir.models.thin_autoencoder import ThinAutoencoder
from supir.training.crops import Tiles, psnr, to_pixels, to_tensor, write_sheet
from supir.training.features import FeatureDistance
from supir.training.loop import Budget, Stage, Trainer, arguments, prepare

KL_WEIGHT = 2e-4
FEATURE_WEIGHT = 0.1
FEATURES_FROM = 0.55
"""Progress from which the feature distance counts: before it, plain fitting is faster."""


def sharpness(first: Tensor, second: Tensor) -> Tensor:
    """L1 distance of the differences between neighbours, one and two pixels apart."""
    difference = first - second
    total = difference.new_zeros(())
    for gap in (1, 2):
        total = total + (difference[..., gap:] - difference[..., :-gap]).abs().mean()
        total = total + (difference[..., gap:, :] - difference[..., :-gap, :]).abs().mean()
    return total / 4


def heldout_batch(tiles: Path, size: int) -> Tensor:
    """Crops of the held-out tiles, always the same twelve: (12, 3, size, size)."""
    heldout = Tiles(tiles, "heldout")
    order = np.random.default_rng(7).permutation(len(heldout.pixels))[:12]
    return to_tensor([np.ascontiguousarray(heldout.pixels[i, :size, :size]) for i in order])


def autoencoder_stage(tiles: Path, model: ThinAutoencoder, batch: int, crop: int, features: Path | None) -> Stage:
    """The stage; E_dr does not learn here."""
    train, clean = Tiles(tiles), heldout_batch(tiles, 192)
    distance = FeatureDistance(features) if features else None

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        x = to_tensor([train.crop(rng, crop)[0] for _ in range(batch)])
        posterior = model.encode(x).latent_dist
        y = model.decode(posterior.sample()).sample
        pixel, sharp = (y - x).abs().mean(), sharpness(y, x)
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        total = pixel + sharp + KL_WEIGHT * kl
        values = {"l1": pixel.item(), "sharp": sharp.item(), "kl": kl.item(), "std": posterior.std.mean().item()}
        if distance is not None and progress > FEATURES_FROM:
            perceived = distance(y, x)
            total = total + FEATURE_WEIGHT * perceived
            values["features"] = perceived.item()
        return total, values

    def sheet(path: Path) -> dict[str, float]:
        y = model(clean).sample
        write_sheet(path, [to_pixels(clean)[:6], to_pixels(y)[:6], to_pixels(clean)[6:], to_pixels(y)[6:]])
        return {"psnr": psnr(y, clean)}

    return Stage("autoencoder", {"autoencoder": model}, loss, sheet, lambda name: ".degraded_encoder." in name)


def normalise_latents(model: ThinAutoencoder, tiles: Path) -> None:
    """Give each latent channel unit deviation over 200 training crops, folded into the weights around the latent."""
    train, rng = Tiles(tiles), np.random.default_rng(1)
    with torch.no_grad():
        crops = [to_tensor([train.crop(rng, 128)[0] for _ in range(8)]) for _ in range(25)]
        latents = torch.cat([model.encode(x).latent_dist.mode() for x in crops])
        scale = latents.std((0, 2, 3))
        moments, last = model.encoder.conv_out, len(scale)
        moments.weight[:last] /= scale[:, None, None, None]
        moments.bias[:last] /= scale  # type: ignore[index]
        moments.bias[last:] -= 2 * scale.log()  # type: ignore[index]
        model.decoder.conv_in.weight *= scale[None, :, None, None]


def main() -> None:
    """Train and write the autoencoder (E_dr a copy of the encoder) to ``OUT/autoencoder``."""
    parser = arguments(main.__doc__, minutes=22)
    parser.add_argument("--features", type=Path, help="EfficientNet-lite0 weights for the feature distance")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128)
    options = parser.parse_args()
    prepare(options.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    model = ThinAutoencoder()
    stage = autoencoder_stage(options.tiles, model, options.batch, options.crop, options.features)
    trainer = Trainer(stage, options.out, Budget(minutes=options.minutes, learning_rate=1.5e-3))
    trainer.resume()
    trainer.train()
    normalise_latents(model, options.tiles)
    model.degraded_encoder.load_state_dict(model.encoder.state_dict())
    model.save_pretrained(options.out / "autoencoder")


if __name__ == "__main__":
    main()
