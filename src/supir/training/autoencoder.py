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

from supir.models.thin_autoencoder import FACTOR, ThinAutoencoder
from supir.training.crops import Tiles, psnr, to_pixels, to_tensor, write_sheet
from supir.training.features import FeatureDistance
from supir.training.loop import Budget, Stage, Trainer, arguments, prepare

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


def heldout_batch(tiles: Path, size: int) -> Tensor:
    """Crops of the held-out tiles, always the same twelve: (12, 3, size, size)."""
    heldout = Tiles(tiles, "heldout")
    order = np.random.default_rng(7).permutation(len(heldout.pixels))[:12]
    return to_tensor([np.ascontiguousarray(heldout.pixels[i, :size, :size]) for i in order])


def autoencoder_stage(
    tiles: Path, model: ThinAutoencoder, batch: int, crop: int, features: Path | None, warm: bool = False
) -> Stage:
    """The stage; E_dr does not learn here. A ``warm`` start counts the features from its beginning."""
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
        if distance is not None and (warm or progress > FEATURES_FROM):
            perceived = distance(y, x)
            total = total + FEATURE_WEIGHT * perceived
            values["features"] = perceived.item()
        return total, values

    def sheet(path: Path) -> dict[str, float]:
        y = model(clean).sample
        write_sheet(path, [to_pixels(clean)[:6], to_pixels(y)[:6], to_pixels(clean)[6:], to_pixels(y)[6:]])
        return {"psnr": psnr(y, clean)}

    return Stage("autoencoder", {"autoencoder": model}, loss, sheet, lambda name: ".restorer." in name)


def start_from_principal_components(model: ThinAutoencoder, tiles: Path) -> None:
    """Set the linear maps to the principal components of 8 x 8 blocks; the networks add what a linear map cannot.

    Component k is divided by its deviation to the power ``WHITENING``, all by one number so that the mean square is 1:
    fine detail gets a fair share of the latents, and coarse shades stay the most robust to noise.
    """
    pixels = Tiles(tiles).pixels
    sample = pixels[:: max(1, len(pixels) // 60)].astype(np.float32) / 127.5 - 1
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


def main() -> None:
    """Train and write the autoencoder (E_dr still the plain encoder) to ``OUT/autoencoder``."""
    parser = arguments(main.__doc__, minutes=10)
    parser.add_argument("--warm-start", type=Path, help="autoencoder folder to begin with, where no state is")
    parser.add_argument("--latent-channels", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--features", type=Path, help="EfficientNet-lite0 weights for the feature distance")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128)
    options = parser.parse_args()
    prepare(options.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    if options.warm_start:
        model = ThinAutoencoder.from_pretrained(options.warm_start)
    else:
        model = ThinAutoencoder(options.latent_channels)
        start_from_principal_components(model, options.tiles)
    stage = autoencoder_stage(
        options.tiles, model, options.batch, options.crop, options.features, bool(options.warm_start)
    )
    trainer = Trainer(stage, options.out, Budget(minutes=options.minutes, learning_rate=options.learning_rate))
    trainer.resume()
    trainer.train()
    model.save_pretrained(options.out / "autoencoder")


if __name__ == "__main__":
    main()
