"""The bundled model's E_dr, taught before it is encoded; ``encoder`` is the stage with the paper's loss.

    python -m supir.training.degraded_encoder --tiles TILES --autoencoder RUN/autoencoder --out RUN2

E_dr is a restoring network before the encoder; encoder and decoder stay fixed. The paper's loss
as printed, |D(E_dr(LQ)) - D(E_dr(GT))|^2, has a trivial minimum (any constant encoder). Here the restored picture is
held against the clean one before it is encoded, which has no such minimum and needs no pass through the autoencoder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from supir.models.thin_autoencoder import ThinAutoencoder
from supir.training.autoencoder import heldout_batch, sharpness
from supir.training.by_hand import arguments, prepare, run
from supir.training.crops import Tiles, halved, psnr, to_pixels, to_tensor, write_sheet
from supir.training.loop import Stage
from supir.training.pairs import degrade


def heldout_pairs(tiles: Path, size: int) -> tuple[Tensor, Tensor]:
    """(clean, degraded) held-out crops, always the same, each (12, 3, size, size)."""
    clean = heldout_batch(tiles, size)
    rng = np.random.default_rng(11)
    return clean, to_tensor([degrade(rng, picture) for picture in to_pixels(clean)])


def encoder_stage(tiles: Path, model: ThinAutoencoder, batch: int, crop: int) -> Stage:
    """The stage; only the restoring network learns."""
    train, (clean, degraded) = Tiles(tiles), heldout_pairs(tiles, 192)

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        pictures = [train.crop(rng, crop)[0] for _ in range(batch)]
        x, lq = to_tensor(pictures), to_tensor([degrade(rng, picture) for picture in pictures])
        y = model.restorer(lq)
        # Not divided by each sample's damage: nearly clean ones, which cannot be improved, would drown the others.
        pixel, sharp = (y - x).abs().mean(), sharpness(y, x)
        total = pixel + 0.5 * sharp
        values = {"left": pixel.item(), "before": (lq - x).abs().mean().item(), "sharp": sharp.item()}
        return total, values

    def sheet(path: Path | None) -> dict[str, float]:
        y = model.decode(model.encode_degraded(degraded).latent_dist.mode()).sample
        best = model(clean).sample
        write_sheet(path, halved([degraded, y, best, clean]))
        return {"degraded": psnr(degraded, clean), "preview": psnr(y, clean), "autoencoder": psnr(best, clean)}

    return Stage("encoder", {"autoencoder": model}, loss, sheet, lambda name: ".restorer." not in name)


def grown(model: ThinAutoencoder, widths: tuple[int, ...], blocks: tuple[int, ...]) -> ThinAutoencoder:
    """The same autoencoder with coarser levels under its restoring network, which begins by computing what it did.

    Levels that both have keep their weights, so they must be of the same widths and numbers of blocks.
    """
    larger = ThinAutoencoder.from_config(model.config, restorer_widths=widths, restorer_blocks=blocks)
    known = model.state_dict()
    for name, parameter in larger.named_parameters():
        if name in known:
            parameter.data.copy_(known[name])
        elif name.startswith("restorer.up.") or (".after." in name and ".conv_out." in name):
            parameter.data.zero_()
    return larger


def main() -> None:
    """Train E_dr and write the autoencoder with it to ``OUT/autoencoder``."""
    parser = arguments(main.__doc__, minutes=14)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--grow-widths", type=int, nargs="+", help="add levels under the network: all its widths")
    parser.add_argument("--grow-blocks", type=int, nargs="+", help="and all its numbers of blocks")
    options = parser.parse_args()
    prepare(options.threads)
    model = ThinAutoencoder.from_pretrained(options.autoencoder)
    if options.grow_widths:
        model = grown(model, tuple(options.grow_widths), tuple(options.grow_blocks))
    stage = encoder_stage(options.tiles, model, options.batch, options.crop)
    run(stage, options, learning_rate=1e-3, log_steps=50)
    model.save_pretrained(options.out / "autoencoder")


if __name__ == "__main__":
    main()
