"""Stage 2: the degradation-robust encoder E_dr (paper section 3.1).

    python -m supir.training.degraded_encoder --tiles TILES --autoencoder RUN/autoencoder --out RUN2

It has the encoder's linear map and learns with the decoder fixed. The paper's loss as printed,
|D(E_dr(LQ)) - D(E_dr(GT))|^2, has a trivial minimum (any constant encoder). The target here is D(E(GT)) of the fixed
encoder, joined by what makes it well-posed: the distances to the clean picture itself and between the latents.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from supir.degradation.second_order import RECIPES, apply, draw
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.training.autoencoder import heldout_batch, sharpness
from supir.training.crops import Pixels, Tiles, psnr, to_pixels, to_tensor, write_sheet
from supir.training.features import FeatureDistance
from supir.training.loop import Budget, Stage, Trainer, arguments, prepare

HEAVY_SHARE = 0.25
"""Share of samples degraded by the full second-order recipe; the others take the light one."""
LATENT_WEIGHT = 0.05
FEATURE_WEIGHT = 0.06


def degrade(rng: np.random.Generator, clean: Pixels) -> Pixels:
    """A degraded uint8 picture of the same size, from the mixture of recipes the bundled model is trained on."""
    recipe = RECIPES["default" if rng.random() < HEAVY_SHARE else "light"]
    degraded = apply(draw(rng, recipe), (clean / 255).astype(np.float32))
    return np.round(degraded * 255).astype(np.uint8)


def heldout_pairs(tiles: Path, size: int) -> tuple[Tensor, Tensor]:
    """(clean, degraded) held-out crops, always the same, each (12, 3, size, size)."""
    clean = heldout_batch(tiles, size)
    rng = np.random.default_rng(11)
    return clean, to_tensor([degrade(rng, picture) for picture in to_pixels(clean)])


def encoder_stage(tiles: Path, model: ThinAutoencoder, batch: int, crop: int, features: Path | None) -> Stage:
    """The stage; only E_dr learns, beside its linear map."""
    train, (clean, degraded) = Tiles(tiles), heldout_pairs(tiles, 192)
    distance = FeatureDistance(features) if features else None

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        pictures = [train.crop(rng, crop)[0] for _ in range(batch)]
        x, lq = to_tensor(pictures), to_tensor([degrade(rng, picture) for picture in pictures])
        with torch.no_grad():
            latent = model.encode(x).latent_dist.mode()
            target = model.decode(latent).sample
        found = model.encode_degraded(lq).latent_dist.mode()
        y = model.decode(found).sample
        paper, pixel = (y - target).square().mean(), (y - x).abs().mean() + 0.5 * sharpness(y, x)
        near = (found - latent).abs().mean()
        total = 2 * paper + pixel + LATENT_WEIGHT * near
        values = {"paper": paper.item(), "pixel": pixel.item(), "latent": near.item()}
        if distance is not None:
            perceived = distance(y, x)
            total = total + FEATURE_WEIGHT * perceived
            values["features"] = perceived.item()
        return total, values

    def sheet(path: Path) -> dict[str, float]:
        y = model.decode(model.encode_degraded(degraded).latent_dist.mode()).sample
        best = model(clean).sample
        rows = [to_pixels(batch[half]) for half in (slice(6), slice(6, 12)) for batch in (degraded, y, best, clean)]
        write_sheet(path, rows)
        return {"degraded": psnr(degraded, clean), "preview": psnr(y, clean), "autoencoder": psnr(best, clean)}

    def frozen(name: str) -> bool:
        # The linear map stays the clean encoder's: one step of it moves every latent at once, which is not stable.
        return not name.startswith("autoencoder.degraded_encoder.") or ".linear." in name

    return Stage("encoder", {"autoencoder": model}, loss, sheet, frozen)


def main() -> None:
    """Train E_dr and write the autoencoder with it to ``OUT/autoencoder``."""
    parser = arguments(main.__doc__, minutes=14)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--features", type=Path, help="EfficientNet-lite0 weights for the feature distance")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128)
    options = parser.parse_args()
    prepare(options.threads)
    cv2.setNumThreads(1)
    model = ThinAutoencoder.from_pretrained(options.autoencoder)
    stage = encoder_stage(options.tiles, model, options.batch, options.crop, options.features)
    trainer = Trainer(stage, options.out, Budget(minutes=options.minutes, learning_rate=6e-4))
    trainer.resume()
    trainer.train()
    model.save_pretrained(options.out / "autoencoder")


if __name__ == "__main__":
    main()
